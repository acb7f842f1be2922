"""Readers: clients of each region that find an edge by the DNS, keep its answer for the ttl and their connections for a while, and
hold every answer against what was promised before they asked."""

import asyncio
import itertools
import random

from .line import Failed, Line, Unanswered, get
from .record import now
from .settings import API_HOST, KEYS, PAGES, SITE_HOST, SUBNETS
from .truth import Wrong

# How long an answer may take: a fetch that waits for another edge's, and much more.
PATIENCE = 10.0
# How long the DNS and a connection may take; then the next one is tried, as resolvers and browsers do, and in the end all once more.
SOON, LATER = 1.0, 3.0
# How many questions go over one connection before it is given up for a new one, so that clients look at the DNS again.
QUESTIONS = 40
# Every so many'th client is slow and keeps its connection for good: it learns of a drain only when it asks again.
SLOW_ONE, SLOW_PAUSE = 10, 7.0


class Lost(Exception):
    """A read that came to nothing: at which edges, over a connection from before or not, and why."""

    def __init__(self, edges, kept, why):
        super().__init__(why)
        self.edges, self.kept, self.why = edges, kept, why


class Client:
    """One reader."""

    def __init__(self, world, record, region, number):
        self.world, self.record, self.region = world, record, region
        self.chance = random.Random(number)
        self.is_slow = number % SLOW_ONE == SLOW_ONE - 1
        self.known = {}
        self.lines = {}

    async def run(self, pause):
        """Reads until it is cancelled."""
        pause = SLOW_PAUSE if self.is_slow else pause
        due = now() + self.chance.random() * pause
        while True:
            await asyncio.sleep(max(0.0, due - now()))
            # Who is late does not hurry.
            due = max(due + pause, now() - pause)
            if self.chance.random() < 0.2:
                await self.read_page(self.chance.randrange(PAGES))
            else:
                await self.read_key(self.chance.randrange(KEYS))

    async def read_key(self, key):
        truth = self.world.truth
        floor_of, judge = (lambda edge: truth.floor(edge, key)), (lambda *seen: truth.judge(seen[0], key, *seen[1:]))
        await self.read(API_HOST, f"/api/products/{key}", floor_of, judge)

    async def read_page(self, page):
        truth = self.world.truth
        await self.read(SITE_HOST, f"/p{page}.txt", truth.site_floor, lambda *seen: truth.judge_page(seen[0], page, *seen[1:]))

    async def read(self, host, target, floor_of, judge):
        began = now()
        try:
            edge, kept, floor, answer = await self.ask(host, target, floor_of)
        except Lost as lost:
            self.record.failed(lost.edges, began, lost.kept, lost.why)
            return
        if answer.status != 200:
            self.record.failed([edge], began, kept, f"status {answer.status} ({answer.field('cache-status')}) for {target}")
            return
        self.record.answered(edge, began, answer, floor > 0)
        try:
            judge(edge, floor, answer.body)
        except Wrong as wrong:
            self.record.stale.append(f"{wrong} ({answer.field('cache-status')})")

    async def ask(self, host, target, floor_of):
        """Asks; once more where a connection from before was closed without a byte (RFC 9110 9.2.2)."""
        edges, is_second = [], False
        while True:
            line = self.lines.pop(host, None)
            kept = line is not None and not line.is_closed
            if not kept:
                line = await self.connect(host, edges)
            floor = floor_of(line.node)
            try:
                answer = await line.ask(get(host, target), PATIENCE)
            except Failed as failed:
                line.close()
                edges.append(line.node)
                if isinstance(failed, Unanswered) and kept and not is_second:
                    is_second = True
                    self.record.retried += 1
                    continue
                raise Lost(edges, kept, str(failed)) from None
            self.keep(host, line)
            return line.node, kept, floor, answer

    def keep(self, host, line):
        line.asked += 1
        if line.is_closed or (line.asked >= QUESTIONS and not self.is_slow):
            line.close()
            self.known.pop(host, None)
        else:
            self.lines[host] = line

    async def connect(self, host, edges):
        """Opens a connection to the first address that takes it."""
        try:
            addresses = await self.resolve(host)
        except Failed as failed:
            raise Lost(edges, False, f"the DNS has no address of {host}: {failed}") from None
        tried, why = list(edges), ""
        for number, (patience, address) in enumerate(itertools.product((SOON, LATER), addresses)):
            self.record.retried += number > 0
            edge = self.world.edge_at[address]
            try:
                line = await Line.open(address, self.world.edge_port, patience)
            except Failed as failed:
                tried.append(edge)
                why = str(failed)
                continue
            line.node = edge
            return line
        self.known.pop(host, None)
        raise Lost(tried, False, why)

    async def resolve(self, host):
        """Returns the addresses of a host, of which one node is asked, and the other one where it does not answer."""
        addresses, until = self.known.get(host, ((), 0.0))
        if now() < until:
            return addresses
        nodes = list(self.world.dns.values())
        self.chance.shuffle(nodes)
        subnet, failed = SUBNETS[self.region], None
        for node, patience in [(node, SOON) for node in nodes] + [(node, LATER) for node in nodes]:
            try:
                addresses, ttl = await node.ask(host, subnet, patience)
            except Failed as error:
                failed = error
                continue
            self.known[host] = addresses, now() + ttl
            return addresses
        raise failed

    def close(self):
        for line in self.lines.values():
            line.close()
