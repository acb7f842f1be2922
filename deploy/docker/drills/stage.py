"""The scene of one drill: load, purges, publishes and questions go on while the drill breaks something; then all is judged."""

import asyncio
import collections
import contextlib

from . import audit
from .clients import Client
from .line import Failed, Line, get
from .prober import probe
from .publisher import Publisher
from .purger import Purger
from .record import SLOW, Record, now
from .settings import API_HOST, KEYS, PAGES, SITE_HOST
from .truth import Wrong
from .world import COMES_BACK

# How long receipts are waited for at the end, beyond their bound.
SETTLES = 20.0


class Stage:
    """What a drill gets: the world, and words for what it does to it."""

    def __init__(self, world, name):
        self.world, self.name, self.settings = world, name, world.settings
        self.record = Record(world.settings)
        self.purger, self.publisher = Purger(world, self.record), Publisher(world, self.record)
        self.clients, self.tasks = [], collections.defaultdict(list)
        self.notes, self.wrong = [], []
        self.read_for = 0.0
        self.reading_since = None
        self.first_seq = None
        self.rate = 0.0
        # The longest time in which all came back.
        self.came_back = 0.0

    # What goes on beside a drill.

    async def begin(self):
        status = await self.world.control.status()
        self.first_seq = int(status["position"].split(".")[1])
        code, said = await self.publisher.publish()
        if code != 0:
            raise Failed(f"the first publish ended with {code}: {said[-300:]}")
        self.probe()
        self.go_on("purge", self.purger.run(self.settings.purge_every))
        self.go_on("publish", self.publisher.run(self.settings.publish_every))
        self.read()
        await asyncio.sleep(self.settings.warm)

    def go_on(self, what, *deeds):
        self.tasks[what] += [asyncio.create_task(deed) for deed in deeds]

    def read(self):
        """Lets clients read: as many as there are, each as often as makes the rate."""
        regions, count = self.settings.regions, self.settings.clients
        self.clients = [Client(self.world, self.record, regions[number % len(regions)], number) for number in range(count)]
        quick = sum(not client.is_slow for client in self.clients)
        self.go_on("read", *(client.run(quick / self.settings.rate) for client in self.clients))
        self.reading_since = now()

    def probe(self):
        self.go_on("probe", *(probe(self.world, self.record, node) for node in self.world.dns))

    async def end(self, what):
        """Ends something that goes on; a failure in it is a failure of the drill."""
        tasks = self.tasks.pop(what, [])
        running = set(tasks)
        while running:
            for task in running:
                task.cancel()
            # Before Python 3.12 wait_for forgets that it was cancelled where what it waits for comes at that moment.
            _, running = await asyncio.wait(running, timeout=1.0)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                self.wrong.append(f"what was to {what} broke: {result!r}")
        if what == "read" and self.reading_since is not None:
            self.read_for += now() - self.reading_since
            self.reading_since = None
            for client in self.clients:
                client.close()

    # Words for drills.

    def note(self, text):
        self.notes.append(text)

    async def warm(self):
        await asyncio.sleep(self.settings.warm)

    async def back(self, done, since=None):
        """Waits until all is well again, which is counted from now or from `since`: leases, the DNS, and a purge that is complete."""
        since = now() if since is None else since
        purge = await self.purger.purge([KEYS - 1])
        await self.world.until_well()
        well = now() - since
        call = await asyncio.wait_for(asyncio.shield(purge), COMES_BACK)
        took = now() - since
        if took > 2.0 and call:
            accepted, complete = call.accepted - since, call.settled - since
            self.note(f"leases and DNS after {well:.1f} s, a purge accepted after {accepted:.1f} s and complete after {complete:.1f} s")
        self.came_back = max(self.came_back, took)
        self.note(f"{done}: all well again {took:.1f} s later")
        return took

    @contextlib.asynccontextmanager
    async def unpublishable(self):
        """Publishes that meet this time may fail: what they need is away."""
        since = now()
        try:
            yield
        finally:
            self.record.unpublishable.append((since, now()))

    @contextlib.asynccontextmanager
    async def away(self, *nodes, kind="dead", after=0.0):
        """These nodes are away as long as this lasts, from so many seconds on."""
        absences = [self.record.away(node, kind, after) for node in nodes]
        try:
            yield absences
        finally:
            for absence in absences:
                absence.until = now()

    def check_accepted(self, before, what):
        """Complains where no purge was accepted since there were `before`."""
        count = len(self.record.calls) - before
        if not count:
            self.wrong.append(f"no purge was accepted {what}: nothing was checked")
        return count

    # The end.

    async def finish(self):
        """Ends purges and publishes, waits for their receipts under reads, looks at all once more, and judges."""
        await self.warm()
        await self.end("publish")
        async with self.publisher.one_at_a_time:
            pass
        await self.end("purge")
        await self.purger.settle(self.settings.bound + SETTLES)
        await self.world.until_well()
        await self.end("read")
        await self.end("probe")
        self.rate = self.record.reads / self.read_for
        await self.sweep()
        if self.record.slow:
            self.note(f"{self.record.slow} answers took more than {SLOW} s, the slowest of {self.record.slowest_of}")
        self.note(f"{self.record.questions} questions to the DNS, the slowest took {self.record.slowest_question:.2f} s")
        events = await self.world.control.journal(self.first_seq)
        status = await self.world.control.status()
        missing = self.world.not_following(status, status["position"])
        record, settings = self.record, self.settings
        self.wrong += audit.of_reads(record)
        self.wrong += audit.of_failures(record)
        self.wrong += audit.of_dns(record)
        self.wrong += audit.of_receipts(record, settings.bound)
        self.wrong += audit.of_journal(record.calls, events)
        self.wrong += audit.of_publishes(record)
        self.wrong += audit.sum_up("nodes do not follow in the end", missing)

    async def sweep(self):
        """Asks every edge for every key and every page once more."""
        await asyncio.gather(*(self.sweep_edge(edge, address) for edge, address in self.world.edges.items()))

    async def sweep_edge(self, edge, address):
        truth = self.world.truth
        line = await Line.open(address, 8080, 5.0)
        keys = [(API_HOST, f"/api/products/{key}", key, truth.floor, truth.judge) for key in range(KEYS)]
        pages = [(SITE_HOST, f"/p{page}.txt", page, lambda edge, _: truth.site_floor(edge), truth.judge_page) for page in range(PAGES)]
        for host, target, what, floor_of, judge in keys + pages:
            began, floor = now(), floor_of(edge, what)
            try:
                answer = await line.ask(get(host, target), 10.0)
                if answer.status != 200:
                    raise Failed(f"status {answer.status}")
                judge(edge, what, floor, answer.body)
            except Wrong as wrong:
                self.record.stale.append(f"in the end {wrong}")
            except Failed as failed:
                self.record.failed([edge], began, False, f"in the end {failed} for {target}")
                return
            self.record.answered(edge, began, answer, floor > 0)
        line.close()

    async def close(self):
        """Ends whatever still goes on."""
        for what in list(self.tasks):
            await self.end(what)
        await self.purger.close()
