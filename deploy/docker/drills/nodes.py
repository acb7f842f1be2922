"""Nodes that are killed, stand still, or are started anew one after the other."""

import asyncio

from . import audit
from .clients import PATIENCE
from .line import Failed, Line, get
from .record import now
from .settings import API_HOST, KEYS
from .truth import Wrong


async def smoke(stage):
    """Nothing breaks: every receipt says applied of every edge, and nobody is without a lease."""
    await stage.warm()
    await stage.end("purge")
    await stage.purger.settle(stage.settings.bound)
    rows = [row for call in stage.record.calls if call.receipt for row in call.receipt["followers"]]
    odd = [f"{row['name']} is {row['state']}" for row in rows if row["state"] != "applied"]
    stage.wrong += audit.sum_up("rows of receipts do not say applied though nothing is broken", odd)
    notes = [note for call in stage.record.calls if call.receipt for note in call.receipt.get("notes", [])]
    stage.wrong += audit.sum_up("receipts have notes", notes)
    check_leases(stage)
    stage.note(f"up and well after {stage.world.started_after:.1f} s")


async def rolling_restart(stage):
    """Everything is told to stop and started anew, one after the other."""
    world = stage.world
    for service in [*world.dns_at, *world.origin_at, *world.edges]:
        await restart(stage, service)
    for service in [f"redis-{region}" for region in stage.settings.regions]:
        await restart(stage, service)
    for service in ("redis-replica", "redis-control"):
        async with stage.unpublishable():
            await restart(stage, service)
    if stage.record.excused:
        stage.wrong.append(f"{stage.record.excused} reads failed")


async def restart(stage, service):
    world, drain = stage.world, stage.settings.drain
    # Who drains answers; a DNS node that has drained does not, an edge is out of the DNS by then.
    kind, after = ("dead", drain) if service in world.dns_at else ("leaves", 0.0)
    async with stage.away(service, kind=kind, after=after):
        began = now()
        await world.stop(service)
        stopped = now() - began
        await world.start(service)
        if service in ("redis-control", "redis-replica"):
            stage.record.renew()
        if service in world.edges or service in world.dns_at:
            await world.until_ready(service)
    await stage.back(f"{service} stopped in {stopped:.1f} s and started")


async def kill_edge(stage):
    """kill -9 of an edge that is started again after half a second, then of one that stays away until the DNS has left it out."""
    settings = stage.settings
    if not settings.short:
        await kill_for(stage, settings.edges[0], 0.5)
        await stage.warm()
    edge = settings.edges[1]
    await kill_for(stage, edge, settings.out_of_dns_by + 2.0)
    stage.note(f"{edge} was last given out by the DNS {stage.record.last_given_out.get(edge, 0.0):.1f} s after it was killed")


async def kill_for(stage, node, span):
    world = stage.world
    async with stage.away(node):
        await world.kill(node)
        await asyncio.sleep(span)
        await world.start(node)
        began = now()
        await world.until_ready(node)
    await stage.back(f"{node} killed for {span:.1f} s", began)


async def kill_origin(stage):
    """kill -9 of an origin for one and a half leases, then of the other."""
    world, settings = stage.world, stage.settings
    for origin in list(world.origin_at)[: 1 if settings.short else 2]:
        before, span = len(stage.record.calls), settings.lease * 1.5
        async with stage.unpublishable():
            await world.kill(origin)
            await asyncio.sleep(span)
            accepted = stage.check_accepted(before, f"while {origin} was away")
            await world.start(origin)
        await stage.back(f"{origin} killed for {span:.1f} s, {accepted} calls accepted by the other one")
        await stage.warm()
    check_leases(stage)


async def kill_origins(stage):
    """kill -9 of both origins at once, for two leases: nobody gives leases, edges ask the upstream."""
    world, span = stage.world, 2 * stage.settings.lease
    before = stage.record.fenced
    async with stage.unpublishable():
        await world.kill(*world.origin_at)
        await asyncio.sleep(span)
        await world.start(*world.origin_at)
        stage.record.renew()
        await stage.back(f"both origins killed for {span:.1f} s")
    stage.note(f"{stage.record.fenced - before} answers came from edges without a lease meanwhile")


async def kill_dns(stage):
    """kill -9 of each DNS node in turn."""
    for node in stage.world.dns_at:
        await kill_for(stage, node, 3.0)
        await stage.warm()


async def pause_origin(stage):
    """An origin stands still for two leases, and wakes up."""
    world, span = stage.world, 2 * stage.settings.lease
    before = len(stage.record.calls)
    async with stage.unpublishable():
        await world.pause("origin-1")
        await asyncio.sleep(span)
        accepted = stage.check_accepted(before, "while origin-1 stood still")
        await world.unpause("origin-1")
    await stage.back(f"origin-1 still for {span:.1f} s, {accepted} calls accepted by the other one")
    check_leases(stage)


async def pause_edge(stage):
    """An edge stands still for two leases and their margins while what it holds is purged and questions gather at its door."""
    world, settings, edge = stage.world, stage.settings, stage.settings.edges[0]
    lines = await open_lines(stage, edge, 100)
    async with stage.away(edge, kind="still"):
        since = now()
        await world.pause(edge)
        # By then receipts say that it is fenced, and all that it holds was purged.
        await asyncio.sleep(settings.bound + KEYS / 15 * settings.purge_every)
        asked = await ask_all(stage, edge, lines)
        await asyncio.sleep(0.5)
        woken = now()
        await world.unpause(edge)
    answers = await hear_all(stage, edge, asked)
    await stage.back(f"{edge} still for {woken - since:.1f} s, {answers} answers to {len(asked)} questions that waited", woken)
    count, wrong = audit.of_fenced(stage.record.calls, since, woken, [edge])
    stage.wrong += wrong
    stage.note(f"{count} receipts of that time call it fenced")
    if answers < len(asked):
        stage.wrong.append(f"only {answers} of {len(asked)} questions were answered when {edge} woke up")


async def open_lines(stage, edge, count):
    """Opens connections with a read behind each: they know the edge from before."""
    lines = []
    for key in range(count):
        line = await Line.open(stage.world.edges[edge], 8080, 5.0)
        await line.ask(get(API_HOST, f"/api/products/{key}"), PATIENCE)
        lines.append(line)
    return lines


async def ask_all(stage, edge, lines):
    """Asks over all of them and some new ones at once; the floors are those of now."""
    for _ in range(20):
        lines.append(await Line.open(stage.world.edges[edge], 8080, 5.0))
    asked = []
    for number, line in enumerate(lines):
        key = number % KEYS
        asked.append((key, stage.world.truth.floor(edge, key), now(), line.ask(get(API_HOST, f"/api/products/{key}"), 30.0), line))
    return asked


async def hear_all(stage, edge, asked):
    """Judges every answer, and returns how many came."""
    count = 0
    for key, floor, began, awaited, line in asked:
        try:
            answer = await awaited
            if answer.status != 200:
                raise Failed(f"status {answer.status}")
            count += 1
            stage.record.answered(edge, began, answer, floor > 0)
            stage.world.truth.judge(edge, key, floor, answer.body)
        except Wrong as wrong:
            stage.record.stale.append(f"when it woke up {wrong}")
        except Failed as failed:
            stage.note(f"when {edge} woke up: {failed}")
        line.close()
    return count


def check_leases(stage):
    """Nobody answered without a lease."""
    if stage.record.fenced:
        stage.wrong.append(f"{stage.record.fenced} answers came from edges that had lost their lease")
