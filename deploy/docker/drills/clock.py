"""The wall clock of an edge jumps by an hour, and back, and the other way, by libfaketime; other clocks are left alone."""

import asyncio
import contextlib
from pathlib import Path

from .compose import Unable
from .line import Line, get
from .nodes import check_leases
from .settings import API_HOST

LIBRARIES = [Path(f"/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1") for machine in ("x86_64", "aarch64")]

OVERLAY = """
services:
  {edge}:
    environment:
      LD_PRELOAD: /faketime/libfaketimeMT.so.1
      FAKETIME_TIMESTAMP_FILE: /faketime-now/offset
      FAKETIME_CACHE_DURATION: "1"
      FAKETIME_DONT_FAKE_MONOTONIC: "1"
      DONT_FAKE_MONOTONIC: "1"
    volumes: ["{library}:/faketime:ro", "./faketime:/faketime-now:ro"]
"""


def edge_of(settings):
    return settings.edges[-1]


@contextlib.asynccontextmanager
async def prepare(world):
    library = next((library for library in LIBRARIES if library.exists()), None)
    if library is None:
        raise Unable("there is no libfaketime: it is in Debian's package faketime")
    edge = edge_of(world.settings)
    (world.folder / "faketime").mkdir(exist_ok=True)
    (world.folder / "faketime").chmod(0o755)
    set_clock(world, "+0")
    (world.folder / "clock.yaml").write_text(OVERLAY.format(edge=edge, library=library.parent))
    await world.up(edge, files=["clock.yaml"], more=["--no-deps"])
    await world.until_well()
    try:
        yield
    finally:
        await world.up(edge, more=["--no-deps"])
        await world.until_well()


def set_clock(world, offset):
    path = world.folder / "faketime" / "offset"
    path.write_text(f"{offset}\n")
    path.chmod(0o644)


async def clock_jumps(stage):
    """What the clock says is believed of the age of responses alone (RFC 9111 4.2.3): an hour ahead nothing that is fetched is fresh,
    so it is asked for each time. Leases do not go by it: they are read past the library, from the system."""
    world, edge = stage.world, edge_of(stage.settings)
    for number, offset in enumerate(("+0", "+3600", "+0", "-3600", "+0")):
        set_clock(world, offset)
        # The library looks at its file once a second.
        await asyncio.sleep(1.5)
        await stage.back(f"the wall clock of {edge} at {offset} s")
        await stage.warm()
        is_hit = await keeps(world, edge, 10_000 + number)
        stage.note(f"a response that was fetched then was {'a hit' if is_hit else 'fetched again'} right behind")
        if is_hit == (offset == "+3600"):
            kept = "kept" if is_hit else "not kept"
            stage.wrong.append(f"with the clock at {offset} s a response was {kept}: the clock is not what it was to be")
    check_leases(stage)


async def keeps(world, edge, key):
    """Asks twice for what nobody else asks for, and tells whether the second answer came from the cache."""
    line = await Line.open(world.edges[edge], 8080, 5.0)
    for _ in range(2):
        answer = await line.ask(get(API_HOST, f"/api/products/{key}"), 10.0)
    line.close()
    return "; hit" in answer.field("cache-status")
