"""A set of 64-bit digests in little memory."""

import hashlib
from array import array

SMALLEST = 1024


class Digests:
    """Digests that were added: 8 to 32 bytes each instead of some 100 in a `set`, so that millions fit.

    Open addressing: a digest stands in the first free place from the one that its lowest bits name.
    """

    def __init__(self) -> None:
        self._places = array("Q", bytes(8 * SMALLEST))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: int) -> bool:
        return self._places[self._place(digest)] != 0

    def add(self, digest: int) -> bool:
        """Whether the digest is new; 0 < digest < 2^64."""
        place = self._place(digest)
        if self._places[place]:
            return False
        self._places[place] = digest
        self._count += 1
        if 2 * self._count > len(self._places):
            self._grow()
        return True

    def _place(self, digest: int) -> int:
        places, mask = self._places, len(self._places) - 1
        place = digest & mask
        while places[place] not in (0, digest):
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        before = self._places
        self._places = array("Q", bytes(16 * len(before)))
        for digest in before:
            if digest:
                self._places[self._place(digest)] = digest


def digest_of(*parts: str) -> int:
    """64 bits of the parts' SHA-256, never 0; two of a million texts are alike by chance once in 10^7 data sets."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) or 1
