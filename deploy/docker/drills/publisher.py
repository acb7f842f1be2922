"""Publishes the site again and again by the command line, in a container of its own. Each publish changes every page."""

import asyncio
import json
import os
import random

from .compose import DockerError
from .record import now
from .settings import PAGES, SITE
from .truth import page_of

TIMEOUT = "15s"
HANGS = 90.0
EVERYWHERE, NOT_EVERYWHERE = 0, 3


class Publisher:
    """Who publishes in one drill."""

    def __init__(self, world, record):
        self.world, self.record = world, record
        self.one_at_a_time = asyncio.Lock()

    async def run(self, pause):
        """Publishes until it is cancelled; what is under way then is finished."""
        while True:
            began = now()
            await asyncio.shield(asyncio.ensure_future(self.publish()))
            await asyncio.sleep(max(0.0, began + pause - now()))

    async def publish(self, large=0, origin=None):
        """Publishes once, with a file of so many bytes beside the pages. Returns the exit code and what was said."""
        async with self.one_at_a_time:
            truth = self.world.truth
            number = truth.newest + 1
            truth.newest = number
            began = now()
            self.write(number, large)
            code, said = await self.run_command(origin)
            if code == EVERYWHERE:
                truth.promise_site(number)
            if code in (EVERYWHERE, NOT_EVERYWHERE):
                self.record.publishes["everywhere" if code == EVERYWHERE else "not everywhere yet"] += 1
            else:
                self.record.publishes["failed"] += 1
                said_short = " ".join(said.split())[-300:]
                self.record.publish_failures.append((began, now(), f"publish {number} ended with {code}: {said_short}"))
            return code, said

    def write(self, number, large):
        folder = self.world.folder / "site"
        for page in range(PAGES):
            (folder / f"p{page}.txt").write_bytes(page_of(number, page))
        for old in folder.glob("large*"):
            old.unlink()
        if large:
            (folder / "large.bin").write_bytes(random.randbytes(large))
        for path in folder.iterdir():
            os.chmod(path, 0o644)

    async def run_command(self, origin=None):
        command = ["/usr/bin/atoll", "publish", "/site", "--site", SITE, "--timeout", TIMEOUT, "--json"]
        environment = {"ATOLL_TOKEN": self.world.control.token}
        if origin is not None:
            environment["ATOLL_ORIGIN"] = f"https://{origin}:7070"
        try:
            said = await self.world.run_in("publisher", command, environment, HANGS)
        except DockerError as error:
            return error.code, error.said
        return EVERYWHERE if json.loads(said)["everywhere"] else NOT_EVERYWHERE, said
