#!/usr/bin/env python3
"""Checks that alerts, their tests, runbooks and the dashboard fit together, and name only metrics that nodes have.

    for url in http://origin-1:7070 http://fra-1:9080 http://ns-1:9300; do curl -s $url/metrics > page-${url##*/}; done
    deploy/monitoring/check.py page-*

Pages are of one origin, one edge and one DNS node at the least. An edge shows some families only once they counted something: ask it
twice for a response of an upstream that is stored, purge that, and ask once more. Exits with 1 and says why where something is wrong.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNBOOKS = HERE.parent.parent / "docs" / "runbooks"
METRIC = re.compile(r"\b(?:atoll|process)_[a-z0-9_]+\b")


def alerts(text):
    """Returns the text of each rule by the name of its alert."""
    parts = re.split(r"^ *- alert: (\w+)$", re.sub(r"^\s*#.*$", "", text, flags=re.M), flags=re.M)[1:]
    return list(zip(parts[::2], parts[1::2]))


def check_alerts(rules, tests, wrong):
    names = [name for name, _ in rules]
    wrong += [f"alerts.yml: {name} is there twice" for name in sorted(set(names)) if names.count(name) > 1]
    for name, rule in rules:
        for key in ("summary", "description"):
            if not re.search(rf"^ *{key}: \S", rule, re.M):
                wrong.append(f"alerts.yml: {name} has no {key}")
        if "$value" not in rule:
            wrong.append(f"alerts.yml: the description of {name} does not show the value")
        if not re.search(r"severity: (page|ticket)\b", rule):
            wrong.append(f"alerts.yml: the severity of {name} is neither page nor ticket")
        if not re.search(rf"^ *runbook_url: docs/runbooks/{name}\.md$", rule, re.M):
            wrong.append(f"alerts.yml: the runbook_url of {name} is not docs/runbooks/{name}.md")
        cases = re.findall(rf"alertname: {name}\b[^\n]*\n\s*exp_alerts:( \[\])?", tests)
        if "" not in cases or " []" not in cases:
            wrong.append(f"alerts_test.yml: {name} is not tested both to fire and not to")


def check_runbooks(names, wrong):
    pages = {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"}
    index = (RUNBOOKS / "README.md").read_text() if (RUNBOOKS / "README.md").exists() else ""
    wrong += [f"docs/runbooks/{name}.md is missing, the page of an alert" for name in sorted(names - pages)]
    wrong += [f"docs/runbooks/{page}.md is of no alert in alerts.yml" for page in sorted(pages - names)]
    wrong += [f"docs/runbooks/README.md does not lead to {name}.md" for name in sorted(names) if f"({name}.md)" not in index]


def check_dashboard(dashboard, wrong):
    """Returns every query of it."""
    panels = [panel for row in dashboard["panels"] for panel in [row, *row.get("panels", [])]]
    ids = [panel["id"] for panel in panels]
    wrong += [f"dashboard.json: the panel id {id} is there twice" for id in sorted(set(ids)) if ids.count(id) > 1]
    taken = {}
    for panel in panels:
        name, grid = panel.get("title", ""), panel["gridPos"]
        if not name:
            wrong.append(f"dashboard.json: panel {panel['id']} has no title")
        if panel["type"] != "row":
            if not panel.get("description"):
                wrong.append(f"dashboard.json: {name!r} has no description")
            if not panel["fieldConfig"]["defaults"].get("unit"):
                wrong.append(f"dashboard.json: {name!r} has no unit")
            if not panel.get("targets"):
                wrong.append(f"dashboard.json: {name!r} asks nothing")
        if grid["x"] + grid["w"] > 24:
            wrong.append(f"dashboard.json: {name!r} is wider than the grid")
        cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        others = {taken[cell] for cell in cells if cell in taken}
        wrong += [f"dashboard.json: {name!r} lies over {other!r}" for other in sorted(others)]
        taken.update(dict.fromkeys(cells, name))
    variables = [variable["query"] for variable in dashboard["templating"]["list"]]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])] + [str(query) for query in variables]


def main(pages):
    if not pages:
        sys.exit(__doc__)
    lines = [line for page in pages for line in Path(page).read_text().splitlines()]
    known = {re.split(r"[{ ]", line)[0] for line in lines if line and not line.startswith("#")}
    missing = [role for role in ("origin", "edge", "dns") if not any(name.startswith(f"atoll_{role}_") for name in known)]
    if missing:
        sys.exit(f"no page is of: {', '.join(missing)}")

    wrong = []
    rules = alerts((HERE / "alerts.yml").read_text())
    if not rules:
        wrong.append("alerts.yml has no alert")
    check_alerts(rules, (HERE / "alerts_test.yml").read_text(), wrong)
    check_runbooks({name for name, _ in rules}, wrong)
    queries = check_dashboard(json.loads((HERE / "dashboard.json").read_text()), wrong)

    named = [(f"alerts.yml: {name}", text) for name, text in rules] + [("dashboard.json", query) for query in queries]
    # What people are told to look at has to be there too.
    named += [(f"docs/runbooks/{page.name}", page.read_text()) for page in sorted(RUNBOOKS.glob("*.md"))]
    for where, text in named:
        wrong += [f"{where} names {metric}, which is on no page" for metric in sorted(set(METRIC.findall(text)) - known)]

    if wrong:
        sys.exit("\n".join(dict.fromkeys(wrong)))
    print(f"{len(rules)} alerts with a page and tests each; {len(queries)} queries of the dashboard; {len(known)} metrics are known")


if __name__ == "__main__":
    main(sys.argv[1:])
