"""How large the deployment is, how fast the load, and how long each thing lasts."""

from dataclasses import dataclass

# The site, the zone, and the hosts that clients ask for.
ZONE = "example.test"
SITE = "www"
SITE_HOST = f"www.{ZONE}"
API_HOST = f"api.{ZONE}"

# Clients of each region, as atoll.toml lists them: the first three bytes of their addresses.
SUBNETS = {"fra": (192, 0, 2), "iad": (198, 51, 100), "sin": (203, 0, 113)}

# Keys that are read and purged, and how many of them one call purges.
KEYS = 200
BATCH = 15

# Pages of the site.
PAGES = 8


@dataclass(frozen=True)
class Settings:
    """One form of the drills; spans are in seconds."""

    short: bool
    lease: float
    heartbeat: float
    ttl: int
    drain: int
    # Reads per second of all clients together, and how many clients there are.
    rate: int
    clients: int
    # The pause between two purges, and between two publishes.
    purge_every: float
    publish_every: float
    # How long all is well before something breaks, and behind it.
    warm: float
    # How long a region is cut off.
    cut: float
    edges: tuple
    regions: tuple

    @property
    def margin(self):
        """What an origin adds to a lease before it counts it as ended."""
        return self.lease / 100 + 0.05

    @property
    def fenced_by(self):
        """How long after its last word the network counts an edge as fenced, at the latest."""
        return self.lease + self.margin

    @property
    def bound(self):
        """What a purge may take: two leases and their margins."""
        return 2 * self.fenced_by

    @property
    def out_of_dns_by(self):
        """How long after its last word an edge may be met by clients: its lease, and the answers that they keep."""
        return self.fenced_by + self.ttl


FULL = Settings(
    short=False,
    lease=5.0,
    heartbeat=1.0,
    ttl=3,
    drain=5,
    rate=1000,
    clients=120,
    purge_every=0.25,
    publish_every=2.0,
    warm=5.0,
    cut=60.0,
    edges=("fra-1", "fra-2", "iad-1", "iad-2", "sin-1", "sin-2"),
    regions=("fra", "iad", "sin"),
)

SHORT = Settings(
    short=True,
    lease=2.0,
    heartbeat=0.5,
    ttl=1,
    drain=3,
    rate=100,
    clients=24,
    purge_every=0.5,
    publish_every=3.0,
    warm=2.0,
    cut=5.0,
    edges=("fra-1", "fra-2", "iad-1"),
    regions=("fra", "iad"),
)
