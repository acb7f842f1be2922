"""A region is cut off from all the others, an origin from the journal's Redis."""

import asyncio

from . import audit
from .nodes import check_leases
from .record import now


async def partition(stage):
    """Both edges of a region lose the backbone, under load; their readers and the upstream still reach them."""
    world, settings = stage.world, stage.settings
    region = settings.regions[0]
    edges = [edge for edge in settings.edges if edge.startswith(region)]
    async with stage.away(*edges, kind="cut"):
        await world.cut(*edges)
        cut = now()
        before = stage.record.fenced
        await asyncio.sleep(settings.cut)
        healed = now()
        await world.heal(*edges)
    await stage.back(f"{' and '.join(edges)} cut off for {healed - cut:.1f} s", healed)
    fenced = stage.record.fenced - before
    if not fenced:
        stage.wrong.append(f"no edge of {region} answered while it had no lease: nothing was checked")
    late = max((stage.record.last_given_out.get(edge, 0.0) for edge in edges), default=0.0)
    stage.note(f"{fenced} answers came from edges without a lease; the DNS gave them out for {late:.1f} s more")
    # `cut` is when both were off: a purge in between may have reached one.
    count, wrong = audit.of_fenced(stage.record.calls, cut, healed, edges)
    stage.wrong += wrong
    stage.note(f"{count} receipts of that time call both fenced")


async def cut_origin(stage):
    """An origin loses the journal's Redis for two leases, while its followers still reach it: they have to leave it."""
    world, span, origin = stage.world, 2 * stage.settings.lease, "origin-2"
    before = len(stage.record.calls)
    async with stage.unpublishable():
        await world.cut(origin, network="control")
        await asyncio.sleep(span)
        accepted = stage.check_accepted(before, f"while {origin} was cut off")
        await world.heal(origin, network="control", address=world.origin_at[origin])
        await stage.back(f"{origin} cut off from the journal's Redis for {span:.1f} s, {accepted} calls accepted by the other one")
    check_leases(stage)
