"""What drills came to: rows for people, an object for programs."""

import statistics

HEADER = (
    "DRILL", "VERDICT", "TOOK", "READS", "READS/s", "BINDING", "HITS", "FAILED", "EXCUSED", "RETRIED", "STALE", "SLOWEST", "PURGES",
    "PUBLISHES", "BACK", "COMPLETE p50 / p99 / worst (bound)",
)
WIDTHS = (18, 8, 6, 7, 8, 8, 7, 7, 8, 8, 6, 8, 7, 10, 7, 0)


def row(cells):
    return " ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS)).rstrip()


def seconds(span):
    return f"{span * 1000:.0f} ms" if span < 1 else f"{span:.1f} s"


class Outcome:
    """What one drill came to."""

    def __init__(self, stage, took):
        record = stage.record
        spans = sorted(record.took(call) for call in record.calls if call.settled is not None and call.void is None)
        self.notes, self.wrong = stage.notes, stage.wrong
        self.values = {
            "drill": stage.name,
            "verdict": "FAILED" if self.wrong else "holds",
            "took_s": round(took, 1),
            "reads": record.reads,
            "reads_per_s": round(stage.rate),
            "binding": record.binding,
            "hits": record.hits,
            "from_second_tier": record.second,
            "fenced": record.fenced,
            "failed": len(record.failures),
            "excused": record.excused,
            "retried": record.retried,
            "stale": len(record.stale),
            "slowest_s": round(record.slowest, 3),
            "slowest_of": record.slowest_of,
            "slow": record.slow,
            "purges": len(spans),
            "publishes": dict(record.publishes),
            "questions": record.questions,
            "back_s": round(stage.came_back, 1),
            "complete_p50_s": round(statistics.median(spans), 4) if spans else None,
            "complete_p99_s": round(spans[min(len(spans) - 1, len(spans) * 99 // 100)], 4) if spans else None,
            "complete_worst_s": round(spans[-1], 4) if spans else None,
            "bound_s": stage.settings.bound,
            "wrong": self.wrong,
            "notes": self.notes,
        }

    @property
    def holds(self):
        return not self.wrong

    def lines(self):
        value = self.values
        spans = [value[f"complete_{which}_s"] for which in ("p50", "p99", "worst")]
        complete = "none" if spans[0] is None else f"{' / '.join(seconds(span) for span in spans)} ({seconds(value['bound_s'])})"
        yield row((
            value["drill"], value["verdict"], f"{value['took_s']:.0f} s", value["reads"], value["reads_per_s"], value["binding"],
            value["hits"], value["failed"], value["excused"], value["retried"], value["stale"], seconds(value["slowest_s"]),
            value["purges"], value["publishes"].get("everywhere", 0), seconds(value["back_s"]) if value["back_s"] else "", complete,
        ))
        for wrong in self.wrong:
            yield f"  WRONG: {wrong}"
        for note in self.notes:
            yield f"  {note}"
