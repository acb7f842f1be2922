"""An origin dies while a site is published through it."""

import asyncio
import hashlib
import json
import random

from .control import Refusal
from .record import now
from .settings import SITE

LARGE = 6 << 20
ROUNDS = 6


async def origin_publishing(stage):
    """kill -9 of the origin that a publish was sent to, at some moment of it; published again at once through whoever is left."""
    world = stage.world
    await stage.end("publish")
    outcomes = []
    for round_ in range(ROUNDS):
        origin = list(world.origin_at)[round_ % 2]
        async with stage.unpublishable():
            publish = asyncio.create_task(stage.publisher.publish(LARGE, origin))
            after = random.uniform(0.15, 1.2)
            await asyncio.sleep(after)
            await world.kill(origin)
            code, said = await publish
        outcomes.append(f"{code} after a kill at {after:.2f} s")
        if code not in (0, 3) and not said.strip():
            stage.wrong.append(f"a publish ended with {code} and said nothing")
        began = now()
        code, said = await stage.publisher.publish(LARGE)
        if code not in (0, 3):
            stage.wrong.append(f"with {origin} away a publish ended with {code}: {said[-300:]}")
        outcomes[-1] += f", then {code} in {now() - began:.1f} s"
        await world.start(origin)
        await stage.back(f"{origin} killed during a publish")
    stage.note(f"exit codes: {'; '.join(outcomes)}")
    await check_versions(stage)
    stage.go_on("publish", stage.publisher.run(stage.settings.publish_every))


async def check_versions(stage):
    """Every version that is listed can be had, with its bytes."""
    control = stage.world.control
    listed = (await control.look(f"/v1/sites/{SITE}/versions"))["versions"]
    checked = 0
    for row in listed[: 2 * ROUNDS + 2]:
        for digest in [row["version"], *(file["digest"] for file in await manifest(control, row["version"]))]:
            try:
                status, body = await control.origins[0].call("GET", f"/v1/blobs/{digest}", control.token)
            except Refusal as refusal:
                status, body = refusal.status, b""
            if status != 200 or hashlib.sha256(body).hexdigest() != digest:
                stage.wrong.append(f"version {row['version'][:12]} is listed, and blob {digest[:12]} is {status} with {len(body)} bytes")
            checked += 1
    stage.note(f"{len(listed)} versions are listed; {checked} blobs of the newest are whole")


async def manifest(control, version):
    _, body = await control.origins[0].call("GET", f"/v1/blobs/{version}", control.token)
    return json.loads(body)["files"]
