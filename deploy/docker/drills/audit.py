"""The judgements at the end of a drill: plain functions from what was recorded to what is wrong with it. Nothing to judge is wrong
too: a drill that checked nothing proves nothing."""

from .record import EXAMPLES

# What seeing a receipt from here may take beside the bound, on a machine that is busy with the drill itself.
SLACK = 1.0
# What had reached a node before it was taken away may be acknowledged for so long.
UNDER_WAY = 0.5


def sum_up(what, wrong):
    """Sums up several: how many, and the first in full."""
    return [f"{len(wrong)} {what}: {'; '.join(wrong[:EXAMPLES])}"] if wrong else []


def of_reads(record):
    """No read fell below what was promised, and there were reads that could have."""
    said = sum_up("answers must not be", record.stale)
    if not record.binding:
        said.append("no read began when something was promised: nothing was checked")
    if not record.hits:
        said.append("no read was answered from a cache: nothing was checked")
    return said


def of_failures(record):
    """Every read was answered for which somebody promised an answer."""
    return sum_up("reads failed", record.failures)


def of_dns(record):
    """Every question was answered by the node that was asked, rightly, unless it was away."""
    said = sum_up("answers of the DNS are missing or wrong", record.dns_wrong)
    if not record.questions:
        said.append("no question was answered by the DNS: nothing was checked")
    return said


def of_receipts(record, bound):
    """Every accepted call was settled as complete, within the bound; and none was refused for another reason than an absence."""
    wrong = []
    for call in record.calls:
        if call.void is not None:
            continue
        if call.settled is None:
            wrong.append(f"purge {call.position} never got a receipt")
        elif call.receipt["state"] != "complete":
            wrong.append(f"purge {call.seq} is {call.receipt['state']} ({', '.join(call.receipt['may_serve'])})")
        elif call.receipt["seq"] != call.seq or call.receipt["position"] != call.position:
            wrong.append(f"the receipt of purge {call.position} is that of {call.receipt['position']}")
        elif any(row["state"] == "pending" for row in call.receipt["followers"]):
            wrong.append(f"purge {call.seq} is complete by a receipt in which an edge is pending")
        elif record.took(call) > bound + SLACK:
            wrong.append(f"purge {call.seq} completed after {record.took(call):.1f} s, the bound is {bound:.1f} s")
    said = sum_up("receipts are not as they must be", wrong)
    odd = [f"{count} times {why}" for why, count in record.refused.items() if why not in (503, "no answer")]
    said += sum_up("ways in which purges were refused that must not be", odd)
    if not any(call.settled for call in record.calls):
        said.append("no purge was completed: nothing was checked")
    return said


def of_journal(calls, events):
    """The journal holds every call that was accepted, once, with its tags."""
    by_marker = {}
    for event in events:
        if event["kind"] == "Purged":
            tags = {scope["tag"] for scope in event["scopes"] if "tag" in scope}
            for tag in tags:
                if tag.startswith("drill-"):
                    by_marker.setdefault(tag, []).append((event["seq"], tags))
    wrong = []
    for call in calls:
        found = by_marker.get(call.marker, [])
        if call.is_gone:
            continue
        if not found:
            wrong.append(f"purge {call.seq} was accepted, and is not in the journal")
        elif len(found) > 1:
            wrong.append(f"purge {call.seq} was accepted once, and is in the journal as {[seq for seq, _ in found]}")
        elif found[0][0] != call.seq:
            wrong.append(f"purge {call.seq} was accepted, and is in the journal as {found[0][0]}")
        elif not {f"product-{key}" for key in call.keys} <= found[0][1]:
            wrong.append(f"purge {call.seq} was accepted with tags that the journal does not have")
    return sum_up("accepted purges are lost, or done twice", wrong)


def of_publishes(record):
    """Publishes went well while all was there that they need; one at least was everywhere."""
    said = sum_up("publishes failed", record.odd_failures())
    if not record.publishes["everywhere"]:
        said.append("no publish was everywhere: nothing was checked")
    return said


def of_fenced(calls, since, until, names):
    """Receipts of purges that were accepted while nodes were away, and settled meanwhile, call exactly these fenced. Returns how
    many there were, and what is wrong."""
    wrong, count = [], 0
    for call in calls:
        if call.accepted < since + UNDER_WAY or call.settled is None or call.settled > until:
            continue
        count += 1
        states = {row["name"]: row["state"] for row in call.receipt["followers"]}
        wrong += [f"purge {call.seq} calls {name} {states.get(name)}" for name in names if states.get(name) != "fenced"]
        wrong += [f"purge {call.seq} calls {name} {state}" for name, state in states.items() if name not in names and state != "applied"]
    said = sum_up("rows of receipts are not as they must be", wrong)
    if not count:
        said.append(f"no purge completed while {', '.join(names)} were away: nothing was checked")
    return count, said
