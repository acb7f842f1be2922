"""A connection by HTTP/1.1 on which one question after the other is asked. It says how a question failed, since that decides
whether a client may ask once more."""

import asyncio
from dataclasses import dataclass


class Failed(Exception):
    """A question without an answer."""


class Unanswered(Failed):
    """The connection was closed before the first byte of the answer: an idempotent question may be asked again."""


@dataclass
class Answer:
    """What came back; the head is in lower case."""

    status: int
    head: str
    body: bytes

    def field(self, name):
        """Returns the value of a field, or an empty text."""
        at = self.head.find(f"\r\n{name}:")
        if at < 0:
            return ""
        end = self.head.find("\r\n", at + 2)
        return self.head[at + len(name) + 3 : end if end >= 0 else None].strip()

    @property
    def closes(self):
        return "close" in self.field("connection")


class Line(asyncio.Protocol):
    """The connection. A protocol rather than a pair of streams, since a thousand questions a second are asked."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.transport = None
        self.is_closed = False
        self.came = bytearray()
        self.awaited = None
        self.timer = None
        # Whose it is, and how often it was used, for those who keep many.
        self.node = None
        self.asked = 0

    @classmethod
    async def open(cls, address, port, patience, tls=None, name=None):
        """Connects within `patience`, or raises Failed."""
        opening = asyncio.get_running_loop().create_connection(cls, address, port, ssl=tls, server_hostname=name if tls else None)
        try:
            _, line = await asyncio.wait_for(opening, patience)
        except asyncio.TimeoutError:
            raise Failed(f"no connection within {patience} s") from None
        except OSError as error:
            raise Failed(f"no connection: {error.strerror or error}") from None
        return line

    def ask(self, question, patience):
        """Sends a question; the answer, or Failed, is in what is returned."""
        self.awaited = self.loop.create_future()
        if self.is_closed:
            self.awaited.set_exception(Unanswered("the connection was closed"))
            return self.awaited
        self.came.clear()
        self.timer = self.loop.call_later(patience, self._late, patience)
        self.transport.write(question)
        return self.awaited

    def close(self):
        self.is_closed = True
        if self.transport is not None:
            self.transport.abort()

    # What asyncio calls.

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.awaited is None or self.awaited.done():
            # Nobody asked for it.
            self.close()
            return
        self.came += data
        try:
            answer = read(self.came)
        except ValueError as error:
            self._end(Failed(f"an answer that can't be read: {error}"))
            self.close()
            return
        if answer is not None:
            self._end(answer)
            if answer.closes:
                self.close()

    def eof_received(self):
        return False

    def connection_lost(self, error):
        self.is_closed = True
        said = f": {error.strerror or error}" if isinstance(error, OSError) else ""
        if self.came:
            self._end(Failed(f"closed in the middle of an answer{said}"))
        else:
            self._end(Unanswered(f"closed before the first byte of an answer{said}"))

    def _late(self, patience):
        self._end(Failed(f"no answer within {patience:.0f} s"))
        self.close()

    def _end(self, result):
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.awaited is not None and not self.awaited.done():
            if isinstance(result, Exception):
                self.awaited.set_exception(result)
            else:
                self.awaited.set_result(result)


def read(came):
    """Returns the answer once all of it has come, before that nothing."""
    at = came.find(b"\r\n\r\n")
    if at < 0:
        return None
    head = came[:at].decode("latin-1").lower()
    if not head.startswith("http/1."):
        raise ValueError(head[:40])
    answer = Answer(int(head[9:12]), head, b"")
    if "chunked" in answer.field("transfer-encoding"):
        body = unchunked(came, at + 4)
        if body is None:
            return None
    else:
        length = int(answer.field("content-length") or 0)
        if len(came) < at + 4 + length:
            return None
        body = bytes(came[at + 4 : at + 4 + length])
    answer.body = body
    return answer


def unchunked(came, at):
    """Returns a body that comes in chunks, once its end is there."""
    body = bytearray()
    while True:
        end = came.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(came[at:end].split(b";")[0], 16)
        at = end + 2
        if len(came) < at + size + 2:
            return None
        if size == 0:
            return bytes(body)
        body += came[at : at + size]
        at += size + 2


def get(host, target):
    """Writes a question."""
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
