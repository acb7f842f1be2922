"""Lies to the checker: each must be noticed, and what is honest must not be taken for a lie. No Docker is needed: an edge and DNS
nodes that lie run in this process, and the clients of the drills read from them."""

import asyncio
import contextlib
import struct
from types import SimpleNamespace

from . import audit, prober, resolver
from .clients import Client
from .compose import write_file, HERE
from .record import Absence, Call, Record, now
from .settings import FULL, SHORT
from .truth import Truth, Wrong, page_of
from .world import World

HOLDS, FAILED = 0, 2
EDGE = "fra-1"


def run():
    results = [*of_truth(), *of_record(), *of_receipts(), *of_the_rest(), *asyncio.run(of_clients())]
    for what, is_right in results:
        print(f"{'right' if is_right else 'WRONG':<6} {what}")
    missed = sum(not is_right for _, is_right in results)
    print(f"{len(results) - missed} of {len(results)} cases are judged as they should be")
    return FAILED if missed else HOLDS


# Answers.


def product(key, version):
    return b'{"made_at":"2026-01-01T00:00:00Z","product":%d,"version":%d}' % (key, version)


def of_truth():
    truth = Truth([EDGE, "iad-1"])
    truth.newest = 5
    truth.promise([3], 7)
    truth.promise_site(4)

    def lies(deed, *arguments):
        try:
            deed(*arguments)
        except Wrong:
            return True
        return False

    mixed = page_of(5, 2)[:100] + page_of(4, 2)[100:]
    yield "a version older than was promised", lies(truth.judge, EDGE, 3, truth.floor(EDGE, 3), product(3, 6))
    yield "honest: the version that was promised, and a newer one", not any(lies(truth.judge, EDGE, 3, 7, product(3, v)) for v in (7, 8))
    yield "another product's answer", lies(truth.judge, EDGE, 3, 0, product(4, 9))
    yield "an answer that is none", lies(truth.judge, EDGE, 3, 0, b"<html>")
    yield "a page of a publish older than was promised", lies(truth.judge_page, EDGE, 2, truth.site_floor(EDGE), page_of(3, 2))
    yield "a page made of two publishes", lies(truth.judge_page, EDGE, 2, 4, mixed)
    yield "a page that is cut off", lies(truth.judge_page, EDGE, 2, 4, page_of(5, 2)[:-1])
    yield "another page", lies(truth.judge_page, EDGE, 2, 4, page_of(5, 1))
    yield "a publish that there is not", lies(truth.judge_page, EDGE, 2, 4, page_of(6, 2))
    yield "honest: a page of the newest publish", not lies(truth.judge_page, EDGE, 2, 4, page_of(5, 2))
    yield "then a page of an older one at the same edge", lies(truth.judge_page, EDGE, 1, truth.site_floor(EDGE), page_of(4, 1))
    yield "honest: the older one at another edge", not lies(truth.judge_page, "iad-1", 1, truth.site_floor("iad-1"), page_of(4, 1))


# Failures, and who was away.


def of_record():
    def failed(absence, kept, began=None, nodes=(EDGE,)):
        record = Record(FULL)
        record.absences += [absence] if absence else []
        record.failed(list(nodes), now() if began is None else began, kept, "status 502")
        return bool(audit.of_failures(record))

    since = now() - 2.0
    dead, cut = Absence(EDGE, "dead", since), Absence(EDGE, "cut", since)
    long_dead, was_dead = Absence(EDGE, "still", since - 60.0), Absence(EDGE, "dead", since - 5.0, since)
    yield "a read that failed while nothing was away", failed(None, False)
    yield "a read that failed without an edge", failed(dead, False, nodes=())
    yield "a read that failed at an edge that is cut off from the origins alone", failed(cut, True)
    yield "a read that failed at an edge that clients should not know any more", failed(long_dead, False)
    yield "a read that failed at a dead edge and then at one that lives", failed(dead, False, nodes=(EDGE, "fra-2"))
    yield "a read that failed behind an absence", failed(was_dead, True)
    yield "honest: a read that failed at a dead edge", not failed(dead, False)
    yield "honest: a read over an old connection to an edge that stands still", not failed(long_dead, True)

    def named(late, address="10.0.0.1"):
        record = Record(FULL)
        record.questions = 1
        record.absences.append(Absence(EDGE, "cut", now() - late))
        record.named("ns-1", now(), [address], {"10.0.0.1": EDGE})
        return bool(audit.of_dns(record))

    yield "the DNS gives out an edge that has had no lease for long", named(FULL.out_of_dns_by + 0.1)
    yield "the DNS gives out an address of nobody", named(0.0, "10.0.0.9")
    yield "honest: an edge whose lease still runs", not named(FULL.lease)

    def unnamed(absence, is_refusal):
        record = Record(FULL)
        record.questions = 1
        record.absences += [absence] if absence else []
        record.unnamed("ns-1", now() - 1.0, "SERVFAIL" if is_refusal else "no answer", is_refusal)
        return bool(audit.of_dns(record))

    away = Absence("ns-1", "dead", now() - 2.0)
    yield "a DNS node that is silent", unnamed(None, False)
    yield "SERVFAIL, even of a node that comes back", unnamed(away, True)
    yield "honest: silence of a node that is away", not unnamed(away, False)


# Receipts and the journal.


def call(state="complete", rows=((EDGE, "applied"),), after=1.0, **changes):
    position = f"{'0' * 16}.9.{'0' * 32}"
    made = Call("drill-1", [3], 7, position, now() - 20.0)
    made.settled = made.accepted + after
    followers = [{"name": name, "state": state} for name, state in rows]
    made.receipt = {"state": state, "seq": 9, "position": position, "may_serve": [], "followers": followers}
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def of_receipts():
    def odd(*calls, renewals=(), refused=()):
        record = Record(FULL)
        record.calls += calls
        record.renewals += renewals
        record.refused.update(refused)
        return bool(audit.of_receipts(record, FULL.bound))

    late = FULL.bound + audit.SLACK + 0.1
    other = {"state": "complete", "seq": 8, "position": "x.8.x", "may_serve": [], "followers": []}
    yield "honest: a receipt within the bound", not odd(call())
    yield "a receipt beyond the bound", odd(call(after=late))
    yield "honest: one beyond it, within the bound from when the journal was back", not odd(call(after=late), renewals=[now() - 15.0])
    yield "a receipt that never came", odd(call(), call(settled=None))
    yield "a receipt that says partial", odd(call("partial"))
    yield "a receipt that is complete with an edge pending", odd(call(rows=((EDGE, "pending"),)))
    yield "a receipt of another purge", odd(call(receipt=other))
    yield "a purge that was refused with 507", odd(call(), refused=[507])
    yield "honest: a purge that was refused with 503", not odd(call(), refused=[503])
    yield "no purge at all", odd()

    event = {"kind": "Purged", "seq": 9, "scopes": [{"tag": "drill-1"}, {"tag": "product-3"}]}
    yield "honest: an accepted purge in the journal", not audit.of_journal([call()], [event])
    yield "an accepted purge that the journal lacks", bool(audit.of_journal([call()], []))
    yield "one that it has twice", bool(audit.of_journal([call()], [event, {**event, "seq": 12}]))
    yield "one that it has at another place", bool(audit.of_journal([call()], [{**event, "seq": 8}]))
    yield "one that it has without a tag", bool(audit.of_journal([call()], [{**event, "scopes": event["scopes"][:1]}]))

    def fenced(*calls):
        return bool(audit.of_fenced(calls, now() - 30.0, now(), [EDGE])[1])

    yield "applied, of an edge that was away", fenced(call())
    yield "fenced, of an edge that was there", fenced(call(rows=((EDGE, "fenced"), ("iad-1", "fenced"))))
    yield "honest: the one fenced, the other applied", not fenced(call(rows=((EDGE, "fenced"), ("iad-1", "applied"))))
    yield "no receipt while it was away", fenced()


def of_the_rest():
    record = Record(FULL)
    yield "a drill in which nothing was read", bool(audit.of_reads(record))
    record.binding = record.hits = 1
    yield "honest: reads that could have shown it", not audit.of_reads(record)
    record.stale.append("fra-1 answered with version 6")
    yield "a stale answer in the record", bool(audit.of_reads(record))
    record.publishes["everywhere"] = 1
    yield "honest: a publish", not audit.of_publishes(record)
    record.publish_failures.append((5.0, 6.0, "publish 3 ended with 2"))
    yield "a publish that failed", bool(audit.of_publishes(record))
    record.unpublishable.append((5.5, 7.0))
    yield "honest: one that failed while an origin was dead", not audit.of_publishes(record)
    yield "a drill in which nothing was published", bool(audit.of_publishes(Record(FULL)))

    world = SimpleNamespace(edges=[EDGE], dns_at=["ns-1"])
    rows = {name: {"name": name, "live": True, "applied": 9} for name in (EDGE, "ns-1")}

    def odd(changes, epoch="e"):
        there = [{**row, **changes.get(name, {})} for name, row in rows.items() if changes.get(name, {}) is not None]
        return bool(World.not_following(world, {"position": "e.9.c", "followers": there}, f"{epoch}.9.c"))

    yield "honest: all follow", not odd({})
    yield "an edge without a lease in the end", odd({EDGE: {"live": False}})
    yield "a DNS node that lags in the end", odd({"ns-1": {"applied": 8}})
    yield "a node that is not there", odd({EDGE: None})
    yield "another life of the journal", odd({}, "f")
    text = (HERE / "atoll.toml").read_text()
    changed = [write_file(text, form, "198.18") for form in (FULL, SHORT)]
    yield "honest: the file of the deployment can be changed", all("198.18.11.11" in text for text in changed)


# An edge and DNS nodes that lie.


class ForgedEdge:
    """Answers products at their newest version, unless `lie` says otherwise: it gets the number of a question on its connection and
    the target, and returns bytes, or nothing to close without a word."""

    def __init__(self):
        self.lie = None
        self.port = None

    async def serve(self, reader, writer):
        number = 0
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                target, number = head.split()[1].decode(), number + 1
                answer = self.lie(number, target) if self.lie else honest(target)
                if answer:
                    writer.write(answer)
                    await writer.drain()
                if not answer or len(answer) < 60:
                    break
        writer.close()


def written(body, status=200):
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nCache-Status: atoll; hit; ttl=9\r\n\r\n" % (status, len(body)) + body


def honest(target):
    number = int(target.rsplit("/", 1)[1].removeprefix("p").removesuffix(".txt"))
    return written(page_of(5, number) if target.startswith("/p") else product(number, 7))


class ForgedDns(asyncio.DatagramProtocol):
    """Answers with one address, or with a code."""

    def __init__(self, code):
        self.code = code
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, sender):
        asked = data[12 : resolver.behind_name(data, 12) + 4]
        answer = b"" if self.code else b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 3, 4) + bytes([127, 0, 0, 1])
        self.transport.sendto(data[:2] + struct.pack("!5H", 0x8400 | self.code, 1, bool(answer), 0, 0) + asked + answer, sender)


async def of_clients():
    loop = asyncio.get_running_loop()
    edge = ForgedEdge()
    server = await asyncio.start_server(edge.serve, "127.0.0.1", 0)
    ports = []
    for code in (0, 2):
        transport, _ = await loop.create_datagram_endpoint(lambda code=code: ForgedDns(code), local_addr=("127.0.0.1", 0))
        ports.append(transport.get_extra_info("sockname")[1])
    good, failing = [await resolver.open_node("127.0.0.1", port) for port in ports]
    world = SimpleNamespace(settings=SHORT, truth=Truth([EDGE]), edge_at={"127.0.0.1": EDGE}, dns={"ns-1": good})
    world.edge_port = server.sockets[0].getsockname()[1]
    world.truth.newest = 5
    world.truth.promise([3], 7)

    async def read(lie, warm=False, what="key"):
        """Returns what a client recorded that read once, over a connection from before where it is warm."""
        record = Record(SHORT)
        client = Client(world, record, "fra", 0)
        edge.lie = None
        if warm:
            await client.read_key(3)
        edge.lie = lie
        await (client.read_key(3) if what == "key" else client.read_page(2))
        client.close()
        return record

    def is_clean(record):
        return not record.failures and not record.stale and record.reads

    results = []
    record = await read(None)
    results.append(("honest: an edge that tells the truth", is_clean(record) and record.hits == 1))
    record = await read(lambda number, target: written(product(3, 6)))
    results.append(("an edge that answers with an old version", len(record.stale) == 1))
    record = await read(lambda number, target: written(b"no", 502))
    results.append(("an edge that answers 502", len(record.failures) == 1))
    record = await read(lambda number, target: None)
    results.append(("an edge that closes a new connection without an answer", len(record.failures) == 1 and not record.retried))
    record = await read(lambda number, target: None if number == 2 else honest(target), warm=True)
    results.append(("honest: one that closes an old connection, and answers on a new one", is_clean(record) and record.retried == 1))
    record = await read(lambda number, target: None, warm=True)
    results.append(("one that closes both", len(record.failures) == 1 and record.retried == 1))
    record = await read(lambda number, target: honest(target)[:50], warm=True)
    results.append(("an answer that breaks off, over an old connection", len(record.failures) == 1 and not record.retried))
    record = await read(lambda number, target: written(page_of(4, 2)[:50] + page_of(5, 2)[50:]), what="page")
    results.append(("a page made of two publishes, by a real connection", len(record.stale) == 1))
    record = await read(None, what="page")
    again = await read(lambda number, target: written(page_of(4, 2)), what="page")
    results.append(("an edge that goes back to an older publish", is_clean(record) and len(again.stale) == 1))

    world.dns = {"ns-1": failing, "ns-2": good}
    records = [await read(None) for _ in range(8)]
    results.append(("honest: of two DNS nodes one says SERVFAIL, and the other is asked", all(is_clean(record) for record in records)))
    record = Record(SHORT)
    probing = [asyncio.create_task(prober.probe(world, record, node)) for node in world.dns]
    await asyncio.sleep(0.3)
    for task in probing:
        task.cancel()
    results.append(("a DNS node that says SERVFAIL", bool(audit.of_dns(record)) and record.questions > 0))
    world.dns = {"ns-1": failing}
    record = await read(None)
    results.append(("a client that finds no edge", len(record.failures) == 1))
    server.close()
    return results
