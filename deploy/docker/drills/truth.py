"""What was promised, and whether an answer keeps to it. No clock and no socket: who reads asks for the floor before it sends its
question, and shows the answer."""

import re

from .settings import KEYS, PAGES

PRODUCT = re.compile(rb'"product":(\d+),"version":(\d+)\}')
PAGE = re.compile(rb"page (\d+) of publish (\d+)\n")


class Wrong(Exception):
    """An answer that must not be."""


def page_of(number, page):
    """Writes a page: each line of it names the publish, so that a page made of two shows."""
    return b"page %d of publish %d\n" % (page, number) * (40 + 160 * (page == 0))


class Truth:
    """Floors below which no answer may fall: of each key at each edge, and of the site at each edge."""

    def __init__(self, edges):
        self.keys = {edge: [0] * KEYS for edge in edges}
        self.site = dict.fromkeys(edges, 0)
        # The newest publish that was begun: nothing newer can be shown.
        self.newest = 0

    def promise(self, keys, version, edges=None):
        """From now on nothing older may be read of these keys, at these edges or at all."""
        for edge in edges or self.keys:
            floors = self.keys[edge]
            for key in keys:
                floors[key] = max(floors[key], version)

    def promise_site(self, number, edges=None):
        """From now on no page of an older publish may be read."""
        for edge in edges or self.site:
            self.site[edge] = max(self.site[edge], number)

    def begin_anew(self, number):
        """The site was put back from a backup, to this publish or any later one."""
        for edge in self.site:
            self.site[edge] = number

    def floor(self, edge, key):
        return self.keys[edge][key]

    def site_floor(self, edge):
        return self.site[edge]

    def judge(self, edge, key, floor, body):
        """Judges what was read of a key by who began when `floor` was promised."""
        found = PRODUCT.search(body)
        if found is None:
            raise Wrong(f"{edge} answered {body[:80]!r} for product {key}")
        product, version = int(found[1]), int(found[2])
        if product != key:
            raise Wrong(f"{edge} answered with product {product} for product {key}")
        if version < floor:
            raise Wrong(f"{edge} answered with version {version} of product {key}, and {floor} was promised before it was asked")

    def judge_page(self, edge, page, floor, body):
        """Judges a page; what it shows is held against every read that begins from now on at this edge."""
        found = PAGE.match(body)
        if found is None or int(found[1]) != page or body != page_of(int(found[2]), page):
            publishes = sorted({int(number) for _, number in PAGE.findall(body)})
            raise Wrong(f"{edge} answered page {page} with {len(body)} bytes of the publishes {publishes}: {body[:60]!r}")
        number = int(found[2])
        if number < floor:
            raise Wrong(f"{edge} answered page {page} of publish {number}, and {floor} was shown or promised before it was asked")
        if number > self.newest:
            raise Wrong(f"{edge} answered page {page} of publish {number}, and there are only {self.newest}")
        self.promise_site(number, [edge])


assert PAGES > 1, "pages of one publish can only differ where there are several"
