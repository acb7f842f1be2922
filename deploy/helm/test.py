#!/usr/bin/env python3
"""Renders the chart by Helm itself and checks what comes out: against the schemas of Kubernetes, against itself, and by `atoll check`.

    test.py --atoll BINARY --venv FOLDER

What it needs (requirements.txt) is installed into FOLDER once.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
import venv

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE / "atoll"
NAMESPACE = "fleet"
# The oldest that Chart.yaml allows, and a new one.
KUBERNETES = ["1.27", "1.37"]
SECRETS = "/run/atoll/secrets"
# How long a node may take once it has drained.
FINISH_S = 15

# What values.schema.json has to refuse, and a word of why.
REFUSED = {
    "an unknown key": ({"replicaCount": 2}, "replicaCount"),
    "an unknown key of a region": ({"regions": [{"name": "fra", "latitude": 1, "longitude": 1, "edgeCount": 2}]}, "edgeCount"),
    "a region without a place": ({"regions": [{"name": "fra"}]}, "latitude"),
    "a place that is none": ({"regions": [{"name": "fra", "latitude": 91, "longitude": 1}]}, "latitude"),
    "a region's name that fits no pod": ({"regions": [{"name": "Frankfurt_1", "latitude": 1, "longitude": 1}]}, "name"),
    "a region's name that ends like a pod's": ({"regions": [{"name": "fra-1", "latitude": 1, "longitude": 1}]}, "name"),
    "no region": ({"regions": []}, "regions"),
    "an address that is none": ({"regions": [{"name": "fra", "latitude": 1, "longitude": 1, "edges": [{"answers": ["edge.test"]}]}]}, "answers"),
    "a password in a URL": ({"regions": [{"name": "fra", "latitude": 1, "longitude": 1, "redis": "redis://u:p@h"}]}, "redis"),
    "a secret in the open": ({"origin": {"config": {"follow_token": "hunter2"}}}, "follow_token"),
    "half a secret": ({"origin": {"config": {"ca": {"secret": "atoll-ca"}}}}, "ca"),
    "several origins on files": ({"origin": {"config": {"journal": None, "blobs": None}}}, "journal"),
    "no origin and no URL of one": ({"origin": {"replicas": 0}}, "urls"),
    "no follower's token": ({"origin": {"config": {"follow_token": None}}}, "follow_token"),
    "what the chart decides": ({"edges": {"config": {"listen": "0.0.0.0:80"}}}, "edges.config"),
    "a drain that is no number of seconds": ({"drain": "1m"}, "drain"),
    "a disk without a unit": ({"edges": {"persistence": {"size": "12"}}}, "size"),
    "a Service of no kind": ({"edges": {"service": {"type": "Public"}}}, "type"),
}

problems = []


def expect(holds, said):
    if not holds:
        problems.append(said)
        print(f"  wrong: {said}")


class Chart:
    """The chart as Helm renders it."""

    def __init__(self, helm):
        self.helm = helm

    def template(self, *files):
        options = [f"--values={file}" for file in files]
        # A name that is not the chart's own, in a namespace that is not the default.
        command = [self.helm, "template", "cdn", CHART, "--namespace", NAMESPACE, "--is-upgrade", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def objects(self, *files):
        import yaml

        done = self.template(*files)
        expect(done.returncode == 0, f"helm template {files}: {done.stderr.strip()}")
        return [thing for thing in yaml.safe_load_all(done.stdout) if thing]

    def objects_of(self, values):
        return self.objects(self.written(values))

    def refusal(self, values):
        done = self.template(self.written(values))
        return done.stderr if done.returncode else None

    def written(self, values):
        file = tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False, dir=SCRATCH.name)
        with file:
            json.dump(values, file)
        return file.name


def of_kind(objects, kind):
    return [thing for thing in objects if thing["kind"] == kind]


def name_of(thing):
    return f"{thing['kind']} {thing['metadata']['name']}"


def fits(selector, labels):
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def pods_of(objects):
    """Every pod that will be: its name, its labels, its spec."""
    for sets in of_kind(objects, "StatefulSet"):
        template = sets["spec"]["template"]
        for at in range(sets["spec"]["replicas"]):
            name = f"{sets['metadata']['name']}-{at}"
            labels = {**template["metadata"]["labels"], "statefulset.kubernetes.io/pod-name": name}
            yield name, labels, template["spec"]


def check_objects(objects):
    """Each object by itself, as an API server would."""
    import kubernetes_validate

    names = [name_of(thing) for thing in objects]
    expect(len(names) == len(set(names)), f"two objects of one name: {sorted(names)}")
    for thing in objects:
        # This one is of the Prometheus operator.
        for version in KUBERNETES if thing["kind"] != "ServiceMonitor" else []:
            try:
                kubernetes_validate.validate(thing, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                expect(False, f"{name_of(thing)} in Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}")
        for label in thing["metadata"]["labels"].values():
            expect(re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", label), f"{name_of(thing)}: label {label}")


def check_links(objects):
    """Each object against the others: who selects whom, and by which ports."""
    pods = list(pods_of(objects))
    for service in of_kind(objects, "Service"):
        meant = [(pod, spec) for pod, labels, spec in pods if fits(service["spec"]["selector"], labels)]
        expect(meant, f"{name_of(service)} selects no pod")
        if "statefulset.kubernetes.io/pod-name" in service["spec"]["selector"]:
            expect([pod for pod, _ in meant] == [service["metadata"]["name"]], f"{name_of(service)} selects {[pod for pod, _ in meant]}")
        for pod, spec in meant:
            known = {(key, port["protocol"]) for port in spec["containers"][0]["ports"] for key in (port["name"], port["containerPort"])}
            for port in service["spec"]["ports"]:
                wanted = (port["targetPort"], port.get("protocol", "TCP"))
                expect(wanted in known, f"{name_of(service)} leads to {wanted}, which pod {pod} has not")
    for budget in of_kind(objects, "PodDisruptionBudget"):
        expect(any(fits(budget["spec"]["selector"]["matchLabels"], labels) for _, labels, _ in pods), f"{name_of(budget)} selects no pod")
    headless = [service for service in of_kind(objects, "Service") if service["spec"].get("clusterIP") == "None"]
    for sets in of_kind(objects, "StatefulSet"):
        selector, labels = sets["spec"]["selector"]["matchLabels"], sets["spec"]["template"]["metadata"]["labels"]
        expect(fits(selector, labels), f"{name_of(sets)} does not select its own pods")
        owners = [other for other in of_kind(objects, "StatefulSet") if fits(other["spec"]["selector"]["matchLabels"], labels)]
        expect(owners == [sets], f"pods of {name_of(sets)} are selected by {[name_of(owner) for owner in owners]}")
        expect(sets["spec"]["serviceName"] in [service["metadata"]["name"] for service in headless], f"{name_of(sets)} lacks its Service")
        budgets = [one for one in of_kind(objects, "PodDisruptionBudget") if fits(one["spec"]["selector"]["matchLabels"], labels)]
        expect(len(budgets) == 1, f"{name_of(sets)} has {len(budgets)} PodDisruptionBudgets")
    for monitor in of_kind(objects, "ServiceMonitor"):
        scraped = [service for service in of_kind(objects, "Service") if fits(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])]
        for pod, labels, _ in pods:
            mine = [service for service in scraped if fits(service["spec"]["selector"], labels)]
            times = sum(port["name"] == end["port"] for one in mine for port in one["spec"]["ports"] for end in monitor["spec"]["endpoints"])
            expect(times == 1, f"pod {pod} is scraped {times} times")


def check_pods(objects, values):
    """What each pod runs, mounts and is asked."""
    named = {(found["secret"], found["key"]) for found in secrets_in(values)}
    specs = [(name, spec) for name, _, spec in pods_of(objects)]
    specs += [(job["metadata"]["name"], job["spec"]["template"]["spec"]) for job in of_kind(objects, "Job")]
    for pod, spec in specs:
        [container] = spec["containers"]
        security, own = spec["securityContext"], container["securityContext"]
        expect(security["runAsNonRoot"] and security["runAsUser"] == 65532, f"{pod} may run as root")
        expect(security["seccompProfile"]["type"] == "RuntimeDefault", f"{pod} has no seccomp profile")
        expect(own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"], f"{pod} may write to its root, or gain rights")
        expect(own["capabilities"] == {"drop": ["ALL"]}, f"{pod} has capabilities")
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        claims = {"data"} if pod in {name for name, _, _ in pods_of(objects)} else set()
        for mount in container["volumeMounts"]:
            expect(mount["name"] in volumes.keys() | claims, f"{pod} mounts {mount['name']}, which is no volume")
        mounted = mounted_in(spec)
        expect(mounted <= named, f"{pod} mounts secrets that are not in values: {mounted - named}")
        ports = {port["name"] for port in container.get("ports", [])}
        for kind, path in ("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz"):
            if "ports" in container:
                probe = container.get(kind, {}).get("httpGet", {})
                expect(probe.get("port") in ports and probe.get("path") == path, f"{pod}: {kind} asks {probe}, and there is {ports}")


def secrets_in(value):
    if isinstance(value, dict) and value.keys() == {"secret", "key"} and isinstance(value["secret"], str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from secrets_in(inner)


def mounted_in(spec):
    sources = [source["secret"] for volume in spec["volumes"] for source in volume.get("projected", {}).get("sources", [])]
    return {(source["name"], item["key"]) for source in sources for item in source["items"] if item["path"] == f"{source['name']}/{item['key']}"}


def check_files(objects, atoll):
    """The file that each pod reads: there, right, and about this pod."""
    [files] = of_kind(objects, "ConfigMap")
    told = {}
    for pod, _, spec in pods_of(objects):
        [container] = spec["containers"]
        env = {variable["name"]: variable.get("value", "").replace("$(POD)", pod) for variable in container["env"]}
        role, *name = [argument.replace("$(POD)", pod) for argument in container["args"]]
        file = env["ATOLL_CONFIG"].removeprefix("/etc/atoll/")
        if file not in files["data"]:
            expect(False, f"pod {pod} reads {file}, and there are {sorted(files['data'])}")
            continue
        written = tomllib.loads(files["data"][file])
        expect(env["ATOLL_NODE"] == "/".join([role, *name]), f"pod {pod} asks the health of {env['ATOLL_NODE']}")
        node = written["origin"] if role == "origin" else written[{"edge": "edges", "dns": "dns"}[role]].get(*name)
        if node is None:
            expect(False, f"pod {pod} is not in {file}")
            continue
        ports = {port["containerPort"] for port in container["ports"]}
        listened = {int(node[key].rsplit(":", 1)[1]) for key in ("listen", "admin") if key in node}
        expect(ports == listened, f"pod {pod} has ports {ports} and listens on {listened}")
        needed = {text for text in secrets_of(written, role)}
        mounted = {f"file:{SECRETS}/{secret}/{key}" for secret, key in mounted_in(spec)}
        expect(needed == mounted, f"pod {pod} needs {needed} and mounts {mounted}")
        drain = int(written.get("drain", "5s").removesuffix("s"))
        expect(spec["terminationGracePeriodSeconds"] > drain + FINISH_S, f"pod {pod} is killed before it has drained")
        told[file] = role
    with tempfile.TemporaryDirectory() as folder:
        for file, text in files["data"].items():
            path = pathlib.Path(folder, file)
            path.write_text(text)
            done = subprocess.run([atoll, "check", "--offline", path], capture_output=True, text=True, timeout=30)
            expect(done.returncode == 0, f"atoll check {file}: {done.stderr.strip()}")
    return told


def secrets_of(written, role):
    """The secrets that a node of this role reads: those of its own Redis, and the origin's or what followers show it."""
    own = {"edge": ["origin", "regions"]}.get(role, ["origin"])
    return set(re.findall(rf"file:{SECRETS}/[^\"]+", json.dumps([written.get(key) for key in own])))


def check_case(chart, atoll, file):
    import yaml

    values = merged(yaml.safe_load((CHART / "values.yaml").read_text()), yaml.safe_load(file.read_text()) if file else {})
    objects = chart.objects(*[file] if file else [])
    check_objects(objects)
    check_links(objects)
    check_pods(objects, values)
    roles = list(check_files(objects, atoll).values())
    edges = sum(len(region.get("edges", [])) for region in values["regions"])
    expect(roles.count("edge") == edges, f"{edges} edges are meant, and there are files for {roles.count('edge')}")
    expect(roles.count("dns") == len(values["dns"]["nodes"]), f"there are files for {roles.count('dns')} DNS nodes")
    return objects


def merged(below, above):
    """As Helm lays values over values: tables by their keys, all else as a whole."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {key: merged(below.get(key), above[key]) if key in above else below[key] for key in below | above}


def check_restarts(chart):
    """What needs a restart restarts those whom it concerns, and nothing else does."""

    def marks(values):
        sets = of_kind(chart.objects_of(values), "StatefulSet")
        return {one["metadata"]["name"]: json.dumps(one["spec"]["template"], sort_keys=True) for one in sets}

    before = marks({})

    def restarted(values):
        after = marks(values)
        return {name.split("-")[2] for name in before if before[name] != after[name]}

    for values, meant in [
        ({"sites": {"www": {"hosts": ["www.test"]}}, "network": {"lease": "9s"}}, set()),
        ({"edges": {"config": {"trusted_proxies": ["10.0.0.0/8"]}}}, set()),
        ({"edges": {"config": {"memory": "600 MiB"}}}, {"edge"}),
        ({"origin": {"config": {"journal": {"url": "redis://other:6379"}}}}, {"origin"}),
        ({"network": {"name": "other"}}, {"origin", "edge", "dns"}),
    ]:
        got = restarted(values)
        expect(got == meant, f"{values} restarts {got or 'nobody'}; meant: {meant or 'nobody'}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--atoll", required=True, type=pathlib.Path, help="the binary")
    arguments.add_argument("--venv", required=True, type=pathlib.Path, help="a folder for what this needs")
    given = arguments.parse_args()
    python = given.venv / "bin" / "python"
    if pathlib.Path(sys.prefix).resolve() != given.venv.resolve():
        if not python.exists():
            venv.create(given.venv, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"], check=True, timeout=500)
        os.execv(python, [str(python), __file__, *sys.argv[1:]])

    chart = Chart(given.venv / "bin" / "helm")
    print("lint")
    done = subprocess.run([chart.helm, "lint", "--strict", CHART], capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0, f"helm lint: {done.stdout}{done.stderr}")
    version = subprocess.run([given.atoll, "--version"], capture_output=True, text=True, timeout=30).stdout.split()[-1]
    import yaml

    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    expect(str(about["appVersion"]) == version, f"Chart.yaml is for {about['appVersion']}, and the binary is {version}")
    for case in [None, *sorted((HERE / "cases").glob("*.yaml"))]:
        print(case.stem if case else "as it comes")
        objects = check_case(chart, given.atoll.resolve(), case)
        print(f"  {len(objects)} objects, {len(list(pods_of(objects)))} pods")
    print("what is refused")
    for what, (values, word) in REFUSED.items():
        said = chart.refusal(values)
        expect(said is not None and "values don't meet the specifications of the schema" in said, f"{what} is not refused: {said}")
        expect(said is None or word in said, f"{what} is refused for another reason: {said}")
    print("restarts")
    check_restarts(chart)
    print(f"{len(problems)} wrong" if problems else "the chart is right")
    return 1 if problems else 0


SCRATCH = tempfile.TemporaryDirectory()
if __name__ == "__main__":
    sys.exit(main())
