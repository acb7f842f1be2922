"""The command: which drills, how they are shown, and what is left behind."""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import backup, clock, disks, engines, network, nodes, publishing, selftest
from .audit import sum_up
from .compose import PROJECT, DockerError, Unable, tear_down
from .line import Failed
from .record import now
from .settings import FULL, SHORT
from .stage import Stage
from .table import HEADER, Outcome, row
from .world import World

# Each drill, and what it needs beforehand. Those of the short form come first.
DRILLS = {
    "smoke": (nodes.smoke, None),
    "partition": (network.partition, None),
    "kill-edge": (nodes.kill_edge, None),
    "kill-origin": (nodes.kill_origin, None),
    "rolling-restart": (nodes.rolling_restart, None),
    "kill-origins": (nodes.kill_origins, None),
    "cut-origin": (network.cut_origin, None),
    "kill-dns": (nodes.kill_dns, None),
    "pause-edge": (nodes.pause_edge, None),
    "pause-origin": (nodes.pause_origin, None),
    "kill-l2": (engines.kill_l2, None),
    "pause-l2": (engines.pause_l2, None),
    "lose-l2": (engines.lose_l2, None),
    "kill-control": (engines.kill_control, None),
    "pause-control": (engines.pause_control, None),
    "kill-replica": (engines.kill_replica, None),
    "lose-control": (engines.lose_control, None),
    "restore-control": (engines.restore_control, None),
    "origin-publishing": (publishing.origin_publishing, None),
    "clock-jumps": (clock.clock_jumps, clock.prepare),
    "fill-edge": (disks.fill_edge, disks.prepare_edge),
    "fill-blobs": (disks.fill_blobs, disks.prepare_blobs),
    "backup-restored": (backup.backup_restored, None),
}
IN_SHORT = ("smoke", "partition", "kill-edge", "kill-origin", "rolling-restart")

HOLDS, NOTHING_MEASURED, FAILED = 0, 1, 2
# No drill takes longer.
LONGEST = 420.0
# Lines of the logs that are shown of a drill that failed; all of them are kept in a folder.
SHOWN = 15


def main():
    arguments = read_arguments()
    if arguments.self_test:
        return selftest.run()
    with one_at_a_time() as is_alone:
        if not is_alone:
            print("other drills run on this machine", file=sys.stderr)
            return NOTHING_MEASURED
        try:
            return asyncio.run(run_all(arguments))
        except Unable as error:
            print(f"nothing can be measured here: {error}", file=sys.stderr)
            return NOTHING_MEASURED
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("interrupted", file=sys.stderr)
            return NOTHING_MEASURED


def read_arguments():
    parser = argparse.ArgumentParser(
        prog="drills.py",
        description="Breaks the deployment of compose.yaml under load, and tells whether it kept what is promised.",
        epilog="Exit codes: 0 all hold; 1 nothing could be measured; 2 a drill failed.",
    )
    one = f"runs this drill, may be repeated: {', '.join(DRILLS)}"
    parser.add_argument("--only", action="append", choices=list(DRILLS), metavar="NAME", help=one)
    parser.add_argument("--short", action="store_true", help=f"fewer containers, shorter spans; without --only {', '.join(IN_SHORT)}")
    parser.add_argument("--rate", type=int, help=f"reads per second of all clients together ({FULL.rate}; {SHORT.rate} with --short)")
    parser.add_argument("--json", action="store_true", help="prints one object")
    parser.add_argument("--keep", action="store_true", help="leaves the deployment running, and says where its files are")
    parser.add_argument("--self-test", action="store_true", help="lies to the checker, which must notice; needs no Docker")
    return parser.parse_args()


@contextlib.contextmanager
def one_at_a_time():
    with open(Path(tempfile.gettempdir()) / f"atoll-drills-{os.getuid()}.lock", "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


async def run_all(arguments):
    settings = SHORT if arguments.short else FULL
    if arguments.rate:
        settings = type(settings)(**{**settings.__dict__, "rate": arguments.rate})
    names = arguments.only or (IN_SHORT if arguments.short else DRILLS)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    shown = None if arguments.json else print
    deployment = Deployment(settings, arguments.keep)
    outcomes = []
    try:
        if shown:
            shown(introduction(settings), row(HEADER), sep="\n", flush=True)
        for name in names:
            outcome = await deployment.drill(name)
            outcomes.append(outcome)
            if shown:
                shown(*outcome.lines(), sep="\n", flush=True)
    finally:
        deployment.end()
    if arguments.json:
        print(json.dumps({"settings": settings.__dict__, "drills": [outcome.values for outcome in outcomes]}, indent=1))
    return HOLDS if all(outcome.holds for outcome in outcomes) else FAILED


def introduction(settings):
    return (
        f"{len(settings.edges)} edges in {len(settings.regions)} regions, 2 origins, 2 DNS nodes; leases of {settings.lease:g} s, ttl "
        f"{settings.ttl} s, drain {settings.drain} s; {settings.clients} clients with {settings.rate} reads/s together, "
        f"{1 / settings.purge_every:g} purges/s; a purge's bound is {settings.bound:.1f} s"
    )


class Deployment:
    """The world in which drills take place; made anew behind a drill that failed, since nobody knows in which state that left it."""

    def __init__(self, settings, keep):
        self.settings, self.keep = settings, keep
        self.world = None

    async def drill(self, name):
        if self.world is None:
            tear_down()
            self.world = World(self.settings)
            await self.bring_up()
        began, since = now(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        stage = Stage(self.world, name)
        deed, prepare = DRILLS[name]
        try:
            async with prepare(self.world) if prepare else contextlib.nullcontext():
                try:
                    await asyncio.wait_for(play(stage, deed), LONGEST)
                finally:
                    await stage.close()
        except (Failed, DockerError, asyncio.TimeoutError, OSError) as error:
            stage.wrong.append(f"it could not be run to its end: {str(error) or type(error).__name__}")
        took = now() - began
        await self.look_at_logs(stage, since)
        outcome = Outcome(stage, took)
        if not outcome.holds and not self.keep:
            self.end()
        return outcome

    async def bring_up(self):
        try:
            await self.world.begin()
        except (Failed, DockerError, OSError) as error:
            with contextlib.suppress(Exception):
                await self.world.look()
                folder = Path(tempfile.mkdtemp(prefix="atoll-drills-logs-"))
                await self.world.logs("24h", folder)
                error = f"{error}; the containers' logs are in {folder}"
            raise Unable(f"the deployment does not come up: {error}") from None

    async def look_at_logs(self, stage, since):
        """Nothing may panic. The logs of a drill that failed are kept, and the worst of them shown."""
        folder = Path(tempfile.mkdtemp(prefix=f"atoll-drills-{stage.name}-"))
        with contextlib.suppress(DockerError, OSError):
            await self.world.look()
            await self.world.logs(since, folder)
        lines = [(log.stem, line.strip()[31:]) for log in sorted(folder.glob("*.log")) for line in log.open(errors="replace")]
        stage.wrong += sum_up("panics", [f"{node}: {line[:300]}" for node, line in lines if "panicked at" in line])
        worst = [f"{node}: {line[:300]}" for node, line in lines if '"level":"ERROR"' in line]
        if worst:
            stage.note(f"{len(worst)} lines of logs are errors, the first: {worst[0]}")
        if stage.wrong:
            stage.notes += worst[1:SHOWN]
            stage.note(f"its logs are in {folder}")
        else:
            shutil.rmtree(folder)

    def end(self):
        """Takes everything down. Ctrl-C does not keep it from that."""
        if self.world is None:
            return
        self.world.close()
        if self.keep:
            print(f"the deployment goes on running as {PROJECT}, of files in {self.world.folder}", file=sys.stderr)
        else:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            tear_down()
            self.world.clean_up()
            signal.signal(signal.SIGINT, before)
        self.world = None


async def play(stage, deed):
    """Sets the scene, does the deed, judges."""
    await stage.begin()
    await deed(stage)
    await stage.finish()
