"""The containers: a copy of the deployment's folder, brought up under a project of its own, and what can be done to its parts."""

import asyncio
import ipaddress
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

PROJECT = "atoll-drills"
HERE = Path(__file__).resolve().parent.parent
LABEL = f"label=com.docker.compose.project={PROJECT}"
# Where the networks of drills may lie: what is set aside for tests of networks (RFC 2544), then what is seldom used.
NETS = ("198.18", "198.19", "10.213", "10.214", "172.31")
# An address of this machine for the ports that compose.yaml publishes, so that a deployment that runs keeps its own.
PUBLISH_ON = "127.83.0.1"


class DockerError(Exception):
    """A command that failed."""

    def __init__(self, command, code, said):
        super().__init__(f"`{' '.join(command[:6])}` ended with {code}: {said.strip()[-600:]}")
        self.code, self.said = code, said


class Unable(Exception):
    """There is nothing here with which anything could be measured."""


async def run(*command, environment=None, patience=120.0, stdin=None):
    """Runs a command and returns what it printed, or raises DockerError."""
    # A session of its own: Ctrl-C is for the drills, which clean up behind themselves.
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, **(environment or {})}, start_new_session=True,
    )
    try:
        said, complaint = await asyncio.wait_for(process.communicate(), patience)
    except BaseException as error:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if isinstance(error, asyncio.TimeoutError):
            raise DockerError(command, "nothing", f"it took longer than {patience:.0f} s") from None
        raise
    if process.returncode != 0:
        raise DockerError(command, process.returncode, (said + complaint).decode(errors="replace"))
    return said


def ask(*command):
    """Runs a command where no loop runs, and returns its lines; nothing where it fails."""
    how = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 120, "start_new_session": True}
    done = subprocess.run(command, check=False, **how)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def tear_down():
    """Removes all that a run made, this one or one that was killed."""
    for list_, remove in (
        (("docker", "ps", "-aq", "--filter", LABEL), ("docker", "rm", "-f", "-v")),
        (("docker", "volume", "ls", "-q", "--filter", LABEL), ("docker", "volume", "rm", "-f")),
        (("docker", "network", "ls", "-q", "--filter", LABEL), ("docker", "network", "rm")),
    ):
        there = ask(*list_)
        if there:
            ask(*remove, *there)


def find_compose():
    """Returns the command, whichever version there is."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and ask(*command, "version"):
            return command
    raise Unable("there is neither `docker compose` nor docker-compose")


def find_images():
    """Returns the images of Atoll and of Redis that are here."""
    if not ask("docker", "info", "--format", "{{.ServerVersion}}"):
        raise Unable("no Docker engine answers: `docker info` says why")
    images = {}
    for variable, names in (("ATOLL_IMAGE", ["atoll:latest"]), ("REDIS_IMAGE", ["redis:7.2-bookworm", "atoll-redis"])):
        names = [os.environ[variable]] if os.environ.get(variable) else names
        images[variable] = next((name for name in names if ask("docker", "image", "inspect", "-f", "{{.Id}}", name)), None)
        if images[variable] is None:
            raise Unable(f"there is no image {' or '.join(names)}: README.md says how to build it")
    return images


def find_net():
    """Returns the first half of addresses that no network of this machine has."""
    routes = [line.split()[0] for line in ask("ip", "-4", "route")]
    taken = [ipaddress.ip_network(route) for route in routes if route[0].isdigit()]
    for net in NETS:
        ours = ipaddress.ip_network(f"{net}.10.0/23"), ipaddress.ip_network(f"{net}.12.0/23")
        if not any(network.overlaps(own) for network in taken for own in ours):
            return net
    raise Unable(f"networks of this machine overlap with all of {', '.join(NETS)}")


def write_file(text, settings, net):
    """Returns the file of the deployment with the spans of the drills, and the addresses that containers will have."""
    changes = [
        (r'^drain = "\w+"', f'drain = "{settings.drain}s"'),
        (r'^lease = "\w+"', f'lease = "{settings.lease:g}s"'),
        (r'^heartbeat = "\w+"', f'heartbeat = "{round(settings.heartbeat * 1000)}ms"'),
        (r'^ttl = "\w+"', f'ttl = "{settings.ttl}s"'),
        (r'^answers = \["192\.0\.2\.(\d+)"\]', rf'answers = ["{net}.11.\1"]'),
        (r'^answers = \["198\.51\.100\.(\d+)"\]', rf'answers = ["{net}.12.\1"]'),
        (r'^answers = \["203\.0\.113\.(\d+)"\]', rf'answers = ["{net}.13.\1"]'),
    ]
    for pattern, line in changes:
        text, count = re.subn(pattern, line, text, flags=re.M)
        if not count:
            raise Unable(f"atoll.toml has no line like {pattern}: drills do not know this file")
    return text


class Containers:
    """The project."""

    def __init__(self, settings):
        self.settings = settings
        self.compose_command, images, self.net = find_compose(), find_images(), find_net()
        self.redis_image = images["REDIS_IMAGE"]
        self.folder = Path(tempfile.mkdtemp(prefix="atoll-drills-"))
        # Users of containers read what is mounted from it; its secrets have a folder of their own.
        self.folder.chmod(0o755)
        self.environment = {
            **images, "COMPOSE_PROJECT_NAME": PROJECT, "DRILLS_NET": self.net, "PUBLISH_ON": PUBLISH_ON, "BINARY": "",
            "COMPOSE_IGNORE_ORPHANS": "1", "DOCKER_CLI_HINTS": "false",
        }
        self.ids = {}

    @property
    def services(self):
        regions = [f"redis-{region}" for region in self.settings.regions]
        control = ["redis-control", "redis-replica", "origin-1", "origin-2"]
        return [*control, *regions, *self.settings.edges, "ns-1", "ns-2", "upstream", "publisher"]

    def prepare(self):
        """Makes the copy, with secrets of its own."""
        for name in ("compose.yaml", ".env", "secrets.sh"):
            shutil.copy(HERE / name, self.folder / name)
        shutil.copytree(HERE / "redis", self.folder / "redis")
        shutil.copy(HERE / "drills" / "compose.yaml", self.folder / "drills.yaml")
        (self.folder / "atoll.toml").write_text(write_file((HERE / "atoll.toml").read_text(), self.settings, self.net))
        for path in self.folder.rglob("*"):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
        (self.folder / "site").mkdir()
        (self.folder / "site").chmod(0o755)
        subprocess.run([self.folder / "secrets.sh"], check=True, stdout=subprocess.DEVNULL, start_new_session=True)

    def clean_up(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    async def compose(self, *command, files=(), patience=180.0):
        """Runs compose, with more files laid over."""
        names = [word for name in ("compose.yaml", "drills.yaml", *files) for word in ("-f", str(self.folder / name))]
        said = await run(*self.compose_command, *names, *command, environment=self.environment, patience=patience)
        await self.look()
        return said

    async def up(self, *services, files=(), more=()):
        await self.compose("up", "-d", "--no-build", *more, *(services or self.services), files=files)

    async def look(self):
        """Learns which container is whose."""
        form = '{{.Label "com.docker.compose.service"}} {{.ID}}'
        said = await run("docker", "ps", "-a", "--no-trunc", "--filter", LABEL, "--format", form)
        self.ids = dict(line.split() for line in said.decode().splitlines() if " " in line.strip())

    # What can be done to a container.

    async def kill(self, *services):
        await run("docker", "kill", "-s", "KILL", *self.of(services))

    async def start(self, *services):
        await run("docker", "start", *self.of(services))

    async def stop(self, *services):
        await run("docker", "stop", "-t", "35", *self.of(services))

    async def pause(self, *services):
        await run("docker", "pause", *self.of(services))

    async def unpause(self, *services):
        await run("docker", "unpause", *self.of(services))

    async def cut(self, *services, network="backbone"):
        """Takes them off a network."""
        await asyncio.gather(*(run("docker", "network", "disconnect", f"{PROJECT}_{network}", id) for id in self.of(services)))

    async def heal(self, *services, network="backbone", address=None):
        """Puts them back, under their names, and the address that they had where it matters."""
        at = ("--ip", address) if address else ()
        connect = ("docker", "network", "connect", *at, "--alias")
        await asyncio.gather(*(run(*connect, service, f"{PROJECT}_{network}", self.ids[service]) for service in services))

    async def remove(self, *services):
        await run("docker", "rm", "-f", *self.of(services))

    async def remove_volumes(self, *names):
        await run("docker", "volume", "rm", *(f"{PROJECT}_{name}" for name in names))

    async def make_volumes(self, *names, options=()):
        for name in names:
            labels = ("--label", f"com.docker.compose.project={PROJECT}", "--label", f"com.docker.compose.volume={name}")
            await run("docker", "volume", "create", *labels, *options, f"{PROJECT}_{name}")

    async def in_volumes(self, script, *volumes):
        """Runs a script in a container that has these volumes at /NAME."""
        mounts = [word for name in volumes for word in ("-v", f"{PROJECT}_{name}:/{name}")]
        label = ("--label", f"com.docker.compose.project={PROJECT}")
        return await run("docker", "run", "--rm", "-u", "0", *label, *mounts, "--entrypoint", "sh", self.redis_image, "-ec", script)

    async def run_in(self, service, command, environment, patience):
        """Runs a command beside what runs in a container, and returns what it printed."""
        values = [word for name in environment for word in ("-e", name)]
        said = await run("docker", "exec", *values, self.ids[service], *command, environment=environment, patience=patience)
        return said.decode()

    async def copy_out(self, service, path):
        """Returns a tar file with a file of a container."""
        return await run("docker", "cp", f"{self.ids[service]}:{path}", "-")

    async def logs(self, since, folder):
        """Writes what the containers said since a moment into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for service, id in self.ids.items():
            with open(folder / f"{service}.log", "wb") as file:
                command = ("docker", "logs", "--timestamps", "--since", since, id)
                process = await asyncio.create_subprocess_exec(*command, stdout=file, stderr=file)
                await process.wait()

    def of(self, services):
        return [self.ids[service] for service in services]
