"""Asks each DNS node all the time, in the name of clients of each region."""

import asyncio
import itertools

from .line import Failed
from .record import now
from .resolver import Refused
from .settings import API_HOST, SITE_HOST, SUBNETS

EVERY, SOON = 0.1, 1.0
# How long an answer may take: as long as dig waits. How fast it comes is not judged.
PATIENCE = 5.0


async def probe(world, record, node):
    """Asks one node until it is cancelled, whether what was asked before was answered or not."""
    questions = itertools.cycle((host, SUBNETS[region]) for region in world.settings.regions for host in (SITE_HOST, API_HOST))
    asked = set()
    try:
        for host, subnet in questions:
            task = asyncio.create_task(ask(world, record, node, host, subnet))
            asked.add(task)
            task.add_done_callback(asked.discard)
            await asyncio.sleep(EVERY)
    finally:
        for task in asked:
            task.cancel()


async def ask(world, record, node, host, subnet):
    asked = now()
    try:
        addresses, _ = await world.dns[node].ask(host, subnet, PATIENCE)
    except Failed as failed:
        record.unnamed(node, asked, str(failed), isinstance(failed, Refused))
    else:
        record.questions += 1
        record.slowest_question = max(record.slowest_question, now() - asked)
        record.named(node, asked, addresses, world.edge_at)


async def given_out(world, region):
    """Returns the edges that each node names to clients of a region."""
    found = {}
    for name, node in world.dns.items():
        addresses, _ = await node.ask(SITE_HOST, SUBNETS[region], SOON)
        found[name] = {world.edge_at.get(address, address) for address in addresses}
    return found
