"""A region is cut off from all the others."""

import asyncio

from . import audit
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
