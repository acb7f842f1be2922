"""Makes data change at the upstream, purges what changed, and follows each purge's receipt."""

import asyncio
import itertools
import random

from .control import Refusal
from .line import Failed, Line
from .record import Call, now
from .settings import BATCH, KEYS

# Calls that nobody accepted yet, beyond which no more are made: while there is no origin they would only gather.
MOST_WAITING = 24
# How long an origin may take to answer before the other one is asked, and how long a call is tried at all.
PATIENCE, TRIES_FOR = 3.0, 150.0
# What may be said to a call that was not accepted: try again.
NOT_NOW = 503


class Purger:
    """Who purges in one drill."""

    def __init__(self, world, record):
        self.world, self.record = world, record
        self.following = set()
        self.waiting = 0
        self.upstream, self.one_at_a_time = None, asyncio.Lock()
        # Both origins take calls in turn.
        self.turn = itertools.cycle(world.control.origins)
        self.batches = itertools.cycle(range(0, KEYS, BATCH))

    async def run(self, pause):
        """Purges until it is cancelled."""
        due = now()
        while True:
            if self.waiting < MOST_WAITING:
                first = next(self.batches)
                await self.purge([key % KEYS for key in range(first, first + BATCH)])
            due = max(due + pause, now())
            await asyncio.sleep(due - now())

    async def purge(self, keys):
        """Changes these keys and begins to purge them; returns the task that ends with the receipt."""
        version = await self.raise_version()
        self.waiting += 1
        task = asyncio.create_task(self.see_through(keys, version))
        self.following.add(task)
        task.add_done_callback(self.following.discard)
        return task

    async def raise_version(self):
        """Lets the upstream's data change: all that it answers from now on is of this version."""
        question = b"POST /api/raise HTTP/1.1\r\nHost: upstream\r\nContent-Length: 0\r\n\r\n"
        async with self.one_at_a_time:
            if self.upstream is None or self.upstream.is_closed:
                self.upstream = await Line.open(self.world.upstream, 7071, 5.0)
            answer = await self.upstream.ask(question, 10.0)
        return int(answer.body.split(b":")[1].rstrip(b"}"))

    async def see_through(self, keys, version):
        try:
            call = await self.send(keys, version)
        finally:
            self.waiting -= 1
        if call is not None:
            self.record.calls.append(call)
            await self.follow(call)
        return call

    async def send(self, keys, version):
        """Sends one purge until an origin accepts it, under a key: what was done without an answer is not done twice."""
        marker = f"drill-{random.getrandbits(64):016x}"
        body = body_of(marker, keys)
        end = now() + TRIES_FOR
        while now() < end:
            origin = next(self.turn)
            try:
                receipt = await self.world.control.at(origin, "POST", "/v1/purges", body, marker, PATIENCE)
            except Refusal as refusal:
                self.record.refused[refusal.status] += 1
                if refusal.status != NOT_NOW:
                    return None
            except Failed:
                self.record.refused["no answer"] += 1
            else:
                return Call(marker, keys, version, receipt["position"], now(), origin)
            await asyncio.sleep(0.5)
        self.record.refused["given up"] += 1
        return None

    async def send_once(self, call):
        """Sends a purge again as it was sent before, under its key."""
        return await self.world.control.at(next(self.turn), "POST", "/v1/purges", body_of(call.marker, call.keys), call.marker)

    async def follow(self, call):
        """Asks for the receipt until it is settled, first the origin that accepted the call; what it says of an edge is believed at
        once."""
        origins = itertools.cycle(sorted(self.world.control.origins, key=lambda origin: origin is not call.origin))
        target, timeout = f"/v1/purges/{call.position}", 0
        while call.void is None:
            try:
                receipt = await self.world.control.at(next(origins), "GET", f"{target}?timeout_ms={timeout}", patience=PATIENCE)
            except Refusal as refusal:
                if refusal.status == 410:
                    # Its life of the journal has ended.
                    call.void, call.is_gone = str(refusal), True
                    return
                await asyncio.sleep(0.3)
                continue
            except Failed:
                await asyncio.sleep(0.3)
                continue
            self.hear(call, receipt)
            if call.settled is not None:
                return
            timeout = 500

    def hear(self, call, receipt):
        """Believes a receipt: whoever begins to read behind it is promised what it says."""
        truth = self.world.truth
        applied = [row["name"] for row in receipt["followers"] if row["state"] == "applied" and row["name"] in truth.keys]
        if receipt["state"] == "complete":
            applied = list(truth.keys)
        if applied:
            truth.promise(call.keys, call.version, applied)
        if receipt["state"] != "pending":
            call.settled, call.receipt = now(), receipt

    async def settle(self, patience):
        """Waits until each call has its receipt, or for so long."""
        if self.following:
            await asyncio.wait(self.following, timeout=patience)

    async def close(self):
        for task in list(self.following):
            task.cancel()
        await asyncio.gather(*self.following, return_exceptions=True)
        if self.upstream is not None:
            self.upstream.close()


def body_of(marker, keys):
    """Writes a purge of these keys, which a tag of its own tells apart from all others in the journal."""
    return {"tags": [marker, *(f"product-{key}" for key in keys)], "wait": "none"}
