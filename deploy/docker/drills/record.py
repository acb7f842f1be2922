"""What one drill saw: reads and how they ended, purges with their receipts, answers of the DNS, and which nodes were away when."""

import collections
import time
from dataclasses import dataclass, field

now = time.monotonic

# Failures that are told in full.
EXAMPLES = 4
# Answers that take longer are counted; no drill fails for it.
SLOW = 0.5


@dataclass
class Absence:
    """A node that was killed, stands still, or is cut off."""

    node: str
    # "dead" and "still" answer nobody; who is "cut" off from the origins, or "leaves", answers its readers.
    kind: str
    since: float
    until: float = float("inf")

    @property
    def is_silent(self):
        return self.kind in ("dead", "still")


@dataclass
class Call:
    """A purge that was accepted."""

    marker: str
    keys: list
    version: int
    position: str
    accepted: float
    origin: object = None
    # When a receipt came that is no longer pending, and that receipt.
    settled: float | None = None
    receipt: dict | None = None
    # Why no receipt is waited for, and whether the journal can't have it any more.
    void: str | None = None
    is_gone: bool = False

    @property
    def seq(self):
        return int(self.position.split(".")[1])


@dataclass
class Record:
    """What one drill saw."""

    settings: object
    reads: int = 0
    binding: int = 0
    hits: int = 0
    second: int = 0
    fenced: int = 0
    retried: int = 0
    excused: int = 0
    slowest: float = 0.0
    slowest_of: str = ""
    slow: int = 0
    failures: list = field(default_factory=list)
    stale: list = field(default_factory=list)
    absences: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    # Moments from which the bound counts anew: whoever completes purges was away until then.
    renewals: list = field(default_factory=list)
    refused: collections.Counter = field(default_factory=collections.Counter)
    publishes: collections.Counter = field(default_factory=collections.Counter)
    # When each failed publish began and ended, and what it said; and when publishes could fail, since what they need was away.
    publish_failures: list = field(default_factory=list)
    unpublishable: list = field(default_factory=list)
    questions: int = 0
    slowest_question: float = 0.0
    dns_wrong: list = field(default_factory=list)
    # When the DNS last gave out an edge that is away.
    last_given_out: dict = field(default_factory=dict)

    # Nodes that are away.

    def away(self, node, kind, after=0.0):
        """Notes that a node is away in so many seconds; what is returned is to be ended when it is back."""
        absence = Absence(node, kind, now() + after)
        self.absences.append(absence)
        return absence

    def is_excused(self, nodes, began, ended, kept):
        """Tells whether nobody promised an answer: each node that was asked was silent at some time of it, and could still be
        known to this client, by an old connection or an answer of the DNS."""
        return bool(nodes) and all(self._is_excused(node, began, ended, kept) for node in nodes)

    def _is_excused(self, node, began, ended, kept):
        def fits(absence):
            is_known = kept or began < absence.since + self.settings.out_of_dns_by
            return absence.is_silent and absence.since < ended and began < absence.until and is_known

        return any(absence.node == node and fits(absence) for absence in self.absences)

    # What readers saw.

    def answered(self, edge, began, answer, is_binding):
        self.reads += 1
        self.binding += is_binding
        took, status = now() - began, answer.field("cache-status")
        self.slow += took > SLOW
        if took > self.slowest:
            self.slowest, self.slowest_of = took, f"{edge} with {status}"
        if "; hit" in status:
            self.hits += 1
            self.second += "detail=l2" in status
        self.fenced += status.endswith("fenced")

    def failed(self, nodes, began, kept, why):
        ended = now()
        if self.is_excused(nodes, began, ended, kept):
            self.excused += 1
            return
        where = " then ".join(nodes) or "no edge"
        self.failures.append(f"{time.strftime('%H:%M:%S')} at {where}, after {ended - began:.2f} s: {why}")

    # What the DNS said.

    def named(self, node, asked, addresses, edges):
        """The DNS answered with addresses; `edges` tells whose they are."""
        for address in addresses:
            edge = edges.get(address)
            if edge is None:
                self.dns_wrong.append(f"{node} answered with {address}, which is no edge's")
                continue
            for absence in self.absences:
                if absence.node != edge or not absence.since < asked < absence.until:
                    continue
                late = asked - absence.since
                self.last_given_out[edge] = max(self.last_given_out.get(edge, 0.0), late)
                if late > self.settings.out_of_dns_by:
                    self.dns_wrong.append(f"{node} gave out {edge} {late:.1f} s after it was last heard of")

    def unnamed(self, node, asked, why, is_refusal):
        """The DNS did not answer, or refused. A node that is away can't answer; none may refuse."""
        ended = now()
        is_away = any(a.node == node and a.is_silent and a.since < ended and asked < a.until for a in self.absences)
        if is_refusal or not is_away:
            self.dns_wrong.append(f"{time.strftime('%H:%M:%S')} {node}: {why}")

    # What publishes and purges came to.

    def odd_failures(self):
        """Returns what publishes said that failed while all was there that they need."""
        def is_excused(began, ended):
            return any(since < ended and began < until for since, until in self.unpublishable)

        return [said for began, ended, said in self.publish_failures if not is_excused(began, ended)]

    def renew(self):
        """From now on the bound counts anew for what is pending."""
        self.renewals.append(now())

    def took(self, call):
        """Returns how long a call's receipt took, from its acceptance or from the last renewal before the receipt."""
        starts = [moment for moment in self.renewals if moment < call.settled]
        return call.settled - max([call.accepted, *starts])
