"""Questions to the DNS nodes by UDP, in the name of clients of some network (RFC 7871)."""

import asyncio
import random
import struct

from .line import Failed

NO_ERROR, SERVFAIL = 0, 2
A, IN, OPT, CLIENT_SUBNET = 1, 1, 41, 8
RCODES = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


class Refused(Failed):
    """An answer that says no."""


class Node(asyncio.DatagramProtocol):
    """A socket to one node, with the questions that wait for an answer."""

    def __init__(self):
        self.waiting = {}
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, _address):
        waiting = self.waiting.pop(struct.unpack("!H", data[:2])[0], None) if len(data) >= 12 else None
        if waiting is not None and not waiting.done():
            waiting.set_result(data)

    def error_received(self, error):
        # The machine says at once that nobody listens.
        for waiting in self.waiting.values():
            if not waiting.done():
                waiting.set_exception(Failed(f"no answer: {error.strerror or error}"))
        self.waiting.clear()

    async def ask(self, name, subnet, patience):
        """Returns the addresses and for how long they may be kept."""
        number = random.randrange(1 << 16)
        while number in self.waiting:
            number = random.randrange(1 << 16)
        waiting = self.waiting[number] = asyncio.get_running_loop().create_future()
        self.transport.sendto(question(number, name, subnet))
        try:
            return read(await asyncio.wait_for(waiting, patience))
        except asyncio.TimeoutError:
            raise Failed(f"no answer within {patience:g} s") from None
        finally:
            self.waiting.pop(number, None)


async def open_node(address, port=5300):
    """Returns a socket to the node at an address."""
    _, node = await asyncio.get_running_loop().create_datagram_endpoint(Node, remote_addr=(address, port))
    return node


def question(number, name, subnet):
    """Writes a question for the IPv4 addresses of a name, in the name of a /24."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    option = struct.pack("!HHHBB", CLIENT_SUBNET, 7, 1, 24, 0) + bytes(subnet)
    head = struct.pack("!6H", number, 0, 1, 0, 0, 1)
    return head + labels + struct.pack("!HH", A, IN) + b"\0" + struct.pack("!HHIH", OPT, 1232, 0, len(option)) + option


def read(answer):
    """Returns what an answer says, or raises Refused."""
    _, flags, questions, answers = struct.unpack("!4H", answer[:8])
    code = flags & 15
    if not flags & 0x8000 or code != NO_ERROR:
        raise Refused(RCODES.get(code, f"rcode {code}"))
    at = 12
    for _ in range(questions):
        at = behind_name(answer, at) + 4
    addresses, ttl = [], None
    for _ in range(answers):
        at = behind_name(answer, at)
        kind, _, kept, length = struct.unpack("!HHIH", answer[at : at + 10])
        at += 10 + length
        if kind == A:
            addresses.append(".".join(str(byte) for byte in answer[at - 4 : at]))
            ttl = kept if ttl is None else min(ttl, kept)
    if not addresses:
        raise Refused("an answer without an address")
    return addresses, ttl


def behind_name(answer, at):
    """Returns where the name that begins at a place ends."""
    while True:
        length = answer[at]
        if length & 0xC0 == 0xC0:
            return at + 2
        if length == 0:
            return at + 1
        at += 1 + length
