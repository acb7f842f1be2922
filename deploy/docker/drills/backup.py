"""All is lost but a backup, which was taken while everything ran; it is put back as README.md says."""

import asyncio

from .compose import PROJECT, run
from .control import Refusal, until
from .engines import COPY
from .record import now

# What a backup is made of. The journal comes first: each blob that it names is there by then.
BLOBS = "rm -rf /copied/* && cp -a /blobs/. /copied/"


async def backup_restored(stage):
    world, record = stage.world, stage.record
    await world.make_volumes("copy", "copied")
    began, before = now(), len(record.calls)
    published = world.truth.site[stage.settings.edges[0]]
    await world.in_volumes(COPY, "redis-control", "copy")
    await world.in_volumes(BLOBS, "blobs", "copied")
    stage.note(f"the backup took {now() - began:.1f} s under load")
    await asyncio.sleep(stage.settings.warm)
    stage.check_accepted(before, "behind the backup")
    await stage.end("publish")
    async with stage.publisher.one_at_a_time:
        pass
    await stage.end("purge")
    await stage.purger.settle(stage.settings.bound)
    gone = world.truth.newest
    await lose_all(stage)
    await put_back(stage)
    # A new life of the journal shows no events of the one before. What was read by its promises is not to be stale all the same.
    for call in record.calls:
        call.is_gone = True
    stage.note(f"{len(record.calls) - before} calls and {gone - published} publishes of the time since the backup was begun are lost")
    await check_remembered(stage, record.calls[before - 1])
    world.truth.begin_anew(published)
    stage.first_seq = 0
    stage.read()
    stage.probe()
    stage.go_on("purge", stage.purger.run(stage.settings.purge_every))
    await stage.warm()
    stage.go_on("publish", stage.publisher.run(stage.settings.publish_every))
    await stage.warm()
    await world.remove_volumes("copy", "copied")


async def check_remembered(stage, call):
    """A purge from before the backup, sent again under its key, is known and not done again: the journal came back with it."""
    try:
        receipt = await stage.purger.send_once(call)
        stage.wrong.append(f"purge {call.seq} from before the backup was done again as {receipt['seq']}: the backup lacked it")
    except Refusal as refusal:
        if refusal.status != 410:
            raise
        stage.note(f"purge {call.seq} from before the backup, sent again under its key, was known")


async def lose_all(stage):
    """Every container and every volume goes, but the upstream, which is somebody else's, and the backup."""
    world = stage.world
    await stage.end("read")
    await stage.end("probe")
    world.control.close()
    lost = [service for service in world.services if service not in ("upstream", "publisher")]
    await world.kill(*lost)
    await world.remove(*lost)
    volumes = (await run("docker", "volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={PROJECT}")).decode().split()
    kept = {f"{PROJECT}_copy", f"{PROJECT}_copied"}
    await run("docker", "volume", "rm", *(volume for volume in volumes if volume not in kept))


async def put_back(stage):
    """Puts the backup back, and declares it."""
    world, began = stage.world, now()
    await world.make_volumes("redis-control", "blobs")
    await world.in_volumes("cp -a /copy/. /redis-control/ && cp -a /copied/. /blobs/", "copy", "copied", "redis-control", "blobs")
    await world.up("redis-control", "redis-replica")
    declared = f"{PROJECT}-new-epoch"
    await world.compose("run", "-d", "--use-aliases", "--name", declared, "origin-1", "origin", "--new-epoch")
    await until("the first origin being ready", 60.0, lambda: is_healthy(declared), 0.3)
    await run("docker", "stop", "-t", "35", declared)
    await run("docker", "rm", declared)
    await world.up()
    stage.record.renew()
    await stage.back("the backup put back, a new epoch declared, everything started", began)


async def is_healthy(name):
    return (await run("docker", "inspect", "-f", "{{.State.Health.Status}}", name)).decode().strip() == "healthy"
