"""The Redis of a region and that of the journal: killed, held still, lost, put back to an old copy."""

import asyncio

from .record import now

L2 = "redis-fra"


async def kill_l2(stage):
    """kill -9 of a region's Redis, for two leases."""
    span = 2 * stage.settings.lease
    await stage.world.kill(L2)
    await asyncio.sleep(span)
    await stage.world.start(L2)
    await stage.back(f"{L2} killed for {span:.1f} s")
    check_second(stage)


async def pause_l2(stage):
    """A region's Redis stands still for two leases."""
    span = 2 * stage.settings.lease
    await stage.world.pause(L2)
    await asyncio.sleep(span)
    await stage.world.unpause(L2)
    await stage.back(f"{L2} still for {span:.1f} s")
    check_second(stage)


async def lose_l2(stage):
    """A region's Redis is removed for good, and an empty one takes its place."""
    await stage.world.remove(L2)
    await asyncio.sleep(3.0)
    await stage.world.up(L2, more=["--no-deps"])
    await stage.back(f"{L2} removed, and an empty one made")
    before = stage.record.second
    await stage.warm()
    if stage.record.second == before:
        stage.wrong.append(f"nothing was read from the new {L2} or its neighbours: nothing was checked")


def check_second(stage):
    stage.note(f"{stage.record.second} of {stage.record.hits} hits came from a region's Redis")


async def kill_control(stage):
    """kill -9 of the journal's Redis for less than a lease, then for two."""
    await kill_redis(stage, "redis-control", (0.3, 2 * stage.settings.lease))


async def kill_replica(stage):
    """kill -9 of its replica, without which nothing is acknowledged."""
    await kill_redis(stage, "redis-replica", (0.3, 2 * stage.settings.lease))


async def kill_redis(stage, service, spans):
    for span in spans:
        async with stage.unpublishable():
            before = stage.record.fenced
            await stage.world.kill(service)
            await asyncio.sleep(span)
            await stage.world.start(service)
            stage.record.renew()
            await stage.back(f"{service} killed for {span:.1f} s")
            stage.note(f"{stage.record.fenced - before} answers came from edges without a lease meanwhile")
        await stage.warm()


async def pause_control(stage):
    """The journal's Redis stands still for two leases, with all who wait for an answer of it."""
    span = 2 * stage.settings.lease
    before = stage.record.fenced
    async with stage.unpublishable():
        await stage.world.pause("redis-control")
        await asyncio.sleep(span)
        await stage.world.unpause("redis-control")
        stage.record.renew()
        await stage.back(f"redis-control still for {span:.1f} s")
    stage.note(f"{stage.record.fenced - before} answers came from edges without a lease meanwhile")


async def lose_control(stage):
    """The journal's Redis loses its disk, and is built anew from its replica's, as README.md says."""
    world = stage.world
    before = stage.record.fenced
    async with stage.unpublishable():
        await world.kill("redis-control")
        began = now()
        await world.remove("redis-control")
        await world.remove_volumes("redis-control")
        await asyncio.sleep(2.0)
        await world.remove("redis-replica")
        await world.make_volumes("redis-control")
        await world.in_volumes("cp -a /redis-replica/. /redis-control/", "redis-replica", "redis-control")
        await world.up("redis-control", "redis-replica")
        stage.record.renew()
        await stage.back("redis-control built from its replica's disk")
    away, fenced = now() - began - stage.came_back, stage.record.fenced - before
    stage.note(f"it was away for {away:.1f} s; {fenced} answers came from edges without a lease")


# Copies the files of a Redis that runs: once more where it rewrote them meanwhile, which its manifest tells.
COPY = """
until rm -rf /copy/* && cp -a /redis-control/. /copy/ && cmp -s /redis-control/appendonlydir/*.manifest /copy/appendonlydir/*.manifest
do sleep 1; done
"""


async def restore_control(stage):
    """The journal's Redis is put back to files from before some purges, under load, while both origins live."""
    world = stage.world
    await world.make_volumes("copy")
    await world.in_volumes(COPY, "redis-control", "copy")
    calls, newest = len(stage.record.calls), stage.world.truth.newest
    await asyncio.sleep(5.0)
    lost = stage.check_accepted(calls, "behind the copy")
    position = (await world.control.status())["position"]
    async with stage.unpublishable():
        await world.kill("redis-control")
        await world.in_volumes("rm -rf /redis-control/* && cp -a /copy/. /redis-control/", "redis-control", "copy")
        await world.start("redis-control")
        stage.record.renew()
        published = world.truth.newest - newest
        await stage.back(f"redis-control put back to before {lost} purges and {published} publishes")
    epoch = (await world.control.status())["position"].split(".")[0]
    if epoch != position.split(".")[0]:
        stage.wrong.append(f"a new epoch began, {epoch} in place of {position.split('.')[0]}, though both origins knew all")
    await world.remove_volumes("copy")
