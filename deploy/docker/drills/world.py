"""A deployment that runs, with what was promised in it so far."""

import asyncio
import io
import tarfile

from . import prober, resolver
from .compose import Containers, DockerError
from .control import Control, Origin, until
from .line import Failed, Line, get
from .record import now
from .truth import Truth

# Where edges serve in their containers.
EDGE_PORT = 8080
# How long the whole may take to come up, and a part of it to come back.
STARTS, COMES_BACK = 120.0, 60.0


class World(Containers):
    """The deployment; truth lives as long as its upstream does."""

    def __init__(self, settings):
        super().__init__(settings)
        net = self.net
        places = {"fra": 11, "iad": 12, "sin": 13}
        self.edges = {edge: f"{net}.{places[edge[:3]]}.{10 + int(edge[4:])}" for edge in settings.edges}
        self.edge_at = {address: edge for edge, address in self.edges.items()}
        self.dns_at = {"ns-1": f"{net}.11.53", "ns-2": f"{net}.12.53"}
        self.origin_at = {"origin-1": f"{net}.10.11", "origin-2": f"{net}.10.12"}
        self.upstream = f"{net}.11.80"
        self.edge_port = EDGE_PORT
        self.dns = {}
        self.control = None
        self.truth = Truth(settings.edges)
        # A configuration's events and tokens stand in front of what drills append.
        self.started_after = None

    async def begin(self):
        """Brings everything up, and waits until it is well. Returns how long that took."""
        began = now()
        self.prepare()
        await self.up()
        ca = self.folder / "secrets" / "ca.pem"
        self.control = Control([Origin(name, address, ca) for name, address in self.origin_at.items()])
        for name, address in self.dns_at.items():
            self.dns[name] = await resolver.open_node(address)
        self.control.token = await until("origin-1's token", STARTS, self.read_token)
        # It is good at all origins, and outlives the machine that issued it.
        issued = await until(
            "a token", STARTS, lambda: self.control.at(self.control.origins[0], "POST", "/v1/tokens", {"name": "drills", "can": ["admin"]})
        )
        self.control.token = issued["token"]
        await self.until_well(STARTS)
        self.started_after = now() - began
        return self.started_after

    async def read_token(self):
        try:
            archive = await self.copy_out("origin-1", "/var/lib/atoll/admin.token")
        except DockerError:
            return None
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            return files.extractfile("admin.token").read().decode().strip()

    def close(self):
        if self.control is not None:
            self.control.close()
        for node in self.dns.values():
            node.transport.close()

    # How it is.

    async def until_well(self, patience=COMES_BACK):
        """Waits until every node has a lease with all applied that is there now, the DNS names every edge to clients of its region,
        and both origins take calls. Returns how long that took."""
        began = now()
        mark = (await until("an answer of an origin", patience, self.control.status))["position"]
        for what, holds in (
            ("both origins being ready", self.are_origins_ready),
            (f"every node having a lease, and all applied up to {mark}", lambda: self.is_applied(mark)),
            ("the DNS naming every edge to clients of its region", self.is_named),
        ):
            await until(what, max(1.0, began + patience - now()), holds)
        return now() - began

    async def are_origins_ready(self):
        ready = await asyncio.gather(*(self.control.is_ready(origin) for origin in self.control.origins))
        return all(ready)

    async def is_applied(self, mark):
        status = await self.control.status()
        missing = self.not_following(status, mark)
        if missing:
            raise Failed("; ".join(missing))
        return True

    def not_following(self, status, mark):
        """Tells who has no lease, or has not applied what a position names."""
        epoch, seq = mark.split(".")[0], int(mark.split(".")[1])
        rows = {row["name"]: row for row in status["followers"]}
        if status["position"].split(".")[0] != epoch:
            return [f"the journal is at {status['position']}, another life than {epoch}"]
        missing = []
        for name in [*self.edges, *self.dns_at]:
            row = rows.get(name)
            if row is None or not row["live"]:
                missing.append(f"{name} has no lease")
            elif row["applied"] < seq:
                missing.append(f"{name} has applied {row['applied']} of {seq}")
        return missing

    async def is_named(self):
        for region in self.settings.regions:
            expected = {edge for edge in self.edges if edge.startswith(region)}
            for node, found in (await prober.given_out(self, region)).items():
                if found != expected:
                    raise Failed(f"{node} names {', '.join(sorted(found))} to clients of {region}")
        return True

    async def is_ready(self, node):
        """Asks /readyz of an edge or DNS node."""
        address, port = (self.edges[node], 9080) if node in self.edges else (self.dns_at[node], 9300)
        try:
            line = await Line.open(address, port, 1.0)
            answer = await line.ask(get(node, "/readyz"), 2.0)
        except Failed:
            return False
        line.close()
        return answer.status == 200

    async def until_ready(self, node):
        await until(f"{node} being ready", COMES_BACK, lambda: self.is_ready(node), 0.05)
