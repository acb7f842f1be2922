"""The control API of the origins: any of them takes every call."""

import asyncio
import json
import ssl

from .line import Failed, Line

PATIENCE = 15.0
# All of them are on this machine.
CONNECT = 1.0


class Refusal(Failed):
    """An answer other than 2xx, with its status and what it says."""

    def __init__(self, status, said):
        super().__init__(f"{status}: {said}")
        self.status = status


class Origin:
    """One origin, with connections that are free."""

    def __init__(self, name, address, ca):
        self.name, self.address = name, address
        self.tls = ssl.create_default_context(cafile=ca)
        self.free = []

    async def call(self, method, target, token=None, body=None, key=None, patience=PATIENCE):
        """Returns the status and the body of an answer, or raises Failed."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.name}:7070"]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        if key is not None:
            lines.append(f"Idempotency-Key: {key}")
        content = b"" if body is None else json.dumps(body).encode()
        if body is not None or method != "GET":
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        question = "\r\n".join([*lines, "", ""]).encode() + content
        while self.free and self.free[-1].is_closed:
            self.free.pop()
        if self.free:
            try:
                return await self.ask(self.free.pop(), question, patience)
            except Failed:
                # An origin that was killed ends what is open without a word. All of it is as old, and is not tried one by one.
                self.close()
                if method != "GET" and key is None:
                    raise
        return await self.ask(await Line.open(self.address, 7070, CONNECT, self.tls, self.name), question, patience)

    async def ask(self, line, question, patience):
        try:
            answer = await line.ask(question, patience)
        except BaseException:
            line.close()
            raise
        if not line.is_closed:
            self.free.append(line)
        return answer.status, answer.body

    def close(self):
        for line in self.free:
            line.close()
        self.free.clear()


class Control:
    """All origins. Calls that only look go on at the next one where one does not answer."""

    def __init__(self, origins):
        self.origins = origins
        self.token = None

    async def at(self, origin, method, target, body=None, key=None, patience=PATIENCE):
        """Asks one origin, and returns what it says, or raises Failed."""
        status, said = await origin.call(method, target, self.token, body, key, patience)
        if not 200 <= status < 300:
            raise Refusal(status, said[:300].decode(errors="replace"))
        return json.loads(said) if said[:1] in (b"{", b"[") else said

    async def look(self, target, patience=PATIENCE):
        """Asks the first origin that answers."""
        failed = None
        for origin in self.origins:
            try:
                return await self.at(origin, "GET", target, patience=patience)
            except Failed as error:
                failed = error
        raise failed

    async def status(self):
        return await self.look("/v1/status", 3.0)

    async def journal(self, after):
        """Returns all events behind a seq."""
        events = []
        while True:
            page = await self.look(f"/v1/journal?after={after}")
            if not page["events"]:
                return events
            events += page["events"]
            after = page["events"][-1]["seq"]

    async def is_ready(self, origin):
        try:
            status, _ = await origin.call("GET", "/readyz", patience=2.0)
        except Failed:
            return False
        return status == 200

    def close(self):
        for origin in self.origins:
            origin.close()


async def until(what, patience, holds, pause=0.1):
    """Waits until `holds` says so, or raises Failed with what was waited for."""
    loop = asyncio.get_running_loop()
    end, why = loop.time() + patience, ""
    while True:
        try:
            found = await holds()
            if found:
                return found
        except Failed as failed:
            why = f" ({failed})"
        if loop.time() > end:
            raise Failed(f"{what} did not happen within {patience:.0f} s{why}")
        await asyncio.sleep(pause)
