"""Disks that are full: that of an edge, and the one on which origins keep blobs."""

import asyncio
import contextlib

from .compose import LABEL, PROJECT, run
from .record import now

# A disk in memory, of a size of its own. A container keeps it mounted, so that it outlives the restart of a node.
SMALL = "size={size},uid=65532,gid=65532,mode=0755"
OVERLAY = """
volumes:
  {name}: {{driver_opts: {{type: tmpfs, device: tmpfs, o: "{options}"}}}}
"""
KEEPER = f"{PROJECT}-keeper"
FILL = "dd if=/dev/zero of=/disk/fill bs=64k 2> /dev/null; dd if=/dev/zero of=/disk/fill2 bs=512 2> /dev/null; df /disk | tail -n 1"


@contextlib.asynccontextmanager
async def small_disk(world, name, size, users):
    """The volume `name` is a small disk as long as this lasts, with what it held; its users are started anew on it."""
    options = SMALL.format(size=size)
    (world.folder / "disk.yaml").write_text(OVERLAY.format(name=name, options=options))
    await world.make_volumes("old")
    await swap(world, name, users, "old", ["disk.yaml"], ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", f"o={options}"))
    try:
        yield
    finally:
        await swap(world, name, users, "old", [], ())
        await world.remove_volumes("old")


async def swap(world, name, users, spare, files, options):
    """Makes the volume anew with other options, and what it held."""
    await world.stop(*users)
    await world.in_volumes(f"rm -rf /{spare}/* /{name}/fill*; cp -a /{name}/. /{spare}/", name, spare)
    await world.remove(*users)
    with contextlib.suppress(Exception):
        await run("docker", "rm", "-f", KEEPER)
    await world.remove_volumes(name)
    await world.make_volumes(name, options=options)
    if options:
        label = ("--label", LABEL.removeprefix("label="))
        mount = ("-v", f"{PROJECT}_{name}:/disk")
        sleeps = ("--entrypoint", "sleep", world.redis_image, "infinity")
        await run("docker", "run", "-d", "--name", KEEPER, *label, "-u", "0", *mount, *sleeps)
    await world.in_volumes(f"cp -a /{spare}/. /{name}/", spare, name)
    await world.up(*users, files=files, more=["--no-deps"])
    await world.until_well()


async def fill(stage):
    said = (await run("docker", "exec", KEEPER, "sh", "-c", FILL)).decode().split()
    if said[3] != "0":
        stage.wrong.append(f"the disk is not full ({' '.join(said)}): nothing was checked")


async def free():
    await run("docker", "exec", KEEPER, "sh", "-c", "rm -f /disk/fill*")


def edge_of(settings):
    return settings.edges[-1]


def prepare_edge(world):
    edge = edge_of(world.settings)
    return small_disk(world, edge, "24m", [edge])


async def fill_edge(stage):
    """The disk of an edge is full while sites are published and purges go on; it is killed and started again on it."""
    world, edge = stage.world, edge_of(stage.settings)
    before = stage.record.publishes["everywhere"]
    await fill(stage)
    await asyncio.sleep(stage.settings.bound)
    stage.note(f"{edge} with a full disk: {stage.record.publishes['everywhere'] - before} publishes were everywhere, by all receipts")
    async with stage.away(edge):
        await world.kill(edge)
        await world.start(edge)
        began = now()
        await world.until_ready(edge)
    await stage.back(f"{edge} killed and started on its full disk", began)
    await stage.warm()
    await free()
    await stage.back("its disk has room again")


def prepare_blobs(world):
    return small_disk(world, "blobs", "96m", list(world.origin_at))


async def fill_blobs(stage):
    """The disk with the blobs is full: nothing can be published, all else goes on."""
    await stage.end("publish")
    before = len(stage.record.calls)
    async with stage.unpublishable():
        await fill(stage)
        code, said = await stage.publisher.publish()
        if code == 0:
            stage.wrong.append("a publish went well on a full disk: nothing was checked")
        stage.note(f"a publish on the full disk ended with {code}: {' '.join(said.split())[-200:]}")
        await stage.warm()
        await free()
    stage.check_accepted(before, "while the disk was full")
    code, said = await stage.publisher.publish()
    if code != 0:
        stage.wrong.append(f"with room again a publish ended with {code}: {said[-300:]}")
    stage.go_on("publish", stage.publisher.run(stage.settings.publish_every))
    await stage.back("the disk has room again")
