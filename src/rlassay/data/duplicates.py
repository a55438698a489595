"""Near-duplicates within a split, and training rows that an evaluation split holds too, told by digests alone."""

import hashlib
import re
import unicodedata
from array import array
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from rlassay.data.drafts import RowRefusedError, UnsuitableError
from rlassay.records import PromptRow

# MERGED FROM data.digests: A set of 64-bit digests in little memory.

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


# MERGED FROM data.duplicates: Near-duplicates within a split, and training rows that an evaluation split holds
# too, told by digests alone.

NEAR = 8
"""Perceptual hashes of 256 bits that differ in at most as many belong to the same picture."""
FLAT = 8
"""A hash with fewer set bits shows nothing to recognise a picture by: such images are compared exactly only."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a prompt shows, in the forms in which two prompts are compared."""

    text: int
    """Digest of question and choices: letters and digits alone, in lower case."""
    exact: tuple[str, ...] = ()
    """SHA-256 of each image, then the path of each video."""
    hashes: tuple[str, ...] = ()
    """Perceptual hash of each image, 64 hex digits."""
    prompt_id: str = ""
    """The key that the source has given it."""

    @cached_property
    def whole(self) -> int:
        """Digest of all that is shown."""
        return digest_of(str(self.text), *self.exact)

    @property
    def but_for_pictures(self) -> int:
        """Digest of text, number of images and videos: what prompts have in common that differ in their images only."""
        return digest_of(str(self.text), str(len(self.hashes)), *self.exact[len(self.hashes) :])


@dataclass(kw_only=True)
class Pictures:
    """Perceptual hashes of images, at 48 bytes each."""

    hashes: bytearray = field(default_factory=bytearray)
    """32 bytes per image; flat ones are left out."""
    keys: array = field(default_factory=lambda: array("Q"))
    """Per image, `Shown.but_for_pictures` of its prompt and the image's place in it, as one digest."""
    prompts: array = field(default_factory=lambda: array("Q"))
    """Per image, the number of its prompt."""
    known: Digests = field(default_factory=Digests)
    """All keys."""

    def add(self, shown: Shown, number: int) -> None:
        """Remember the images of prompt `number`."""
        for place, one in enumerate(shown.hashes):
            if not _is_flat(one):
                self.hashes += bytes.fromhex(one)
                self.keys.append(_key(shown, place))
                self.prompts.append(number)
                self.known.add(self.keys[-1])

    def has_prompt_like(self, shown: Shown) -> bool:
        """Whether a prompt differs in nothing but its images, and each of these is near its counterpart."""
        alike: set[int] | None = None
        for place, one in enumerate(shown.hashes):
            key = _key(shown, place)
            if _is_flat(one) or key not in self.known:
                return False
            places = np.flatnonzero(np.frombuffer(self.keys, np.uint64) == key)
            near = places[self._distances(one, places) <= NEAR]
            prompts = {self.prompts[int(index)] for index in near}
            alike = prompts if alike is None else alike & prompts
        return bool(alike)

    def has_near(self, one: str) -> bool:
        """Whether an image is near any of these."""
        if not self.hashes or _is_flat(one):
            return False
        return bool(self._distances(one, slice(None)).min() <= NEAR)

    def _distances(self, one: str, places: np.ndarray | slice) -> np.ndarray:
        """In how many of 256 bits the hash differs from each of those at `places`."""
        mine = np.frombuffer(bytes.fromhex(one), np.uint64)
        return np.bitwise_count(np.frombuffer(self.hashes, np.uint64).reshape(-1, 4)[places] ^ mine).sum(axis=1)


@dataclass(kw_only=True)
class Seen:
    """The prompts of one split: some 50 bytes for one without images, some 200 with one."""

    split: str
    """Its name."""
    exactly: bool = False
    """Whether images that merely look alike count as different."""
    prompts: Digests = field(default_factory=Digests)
    """Everything that each prompt shows, as one digest."""
    prompt_ids: Digests = field(default_factory=Digests)
    """Keys that the source has given."""
    images: Digests = field(default_factory=Digests)
    """Digests of all images and paths of all videos."""
    pictures: Pictures = field(default_factory=Pictures)
    """How the images look."""

    def refuse_duplicate(self, shown: Shown, kind: str = "duplicate") -> None:
        """UnsuitableError for a prompt of the same text and look, RowRefusedError for a key that is in use."""
        if shown.whole in self.prompts or (not self.exactly and self.pictures.has_prompt_like(shown)):
            raise UnsuitableError(f"{kind}: nearly the same prompt stands in the split {self.split!r}")
        if shown.prompt_id and digest_of(shown.prompt_id) in self.prompt_ids:
            raise RowRefusedError(
                f"prompt_id: {shown.prompt_id!r} belongs to another row of the split {self.split!r} too; "
                "give each row its own, or leave it out"
            )

    def refuse_shared_image(self, shown: Shown) -> None:
        """UnsuitableError for an image that this split has too, even with another question."""
        same = any(digest_of(one) in self.images for one in shown.exact)
        if same or (not self.exactly and any(self.pictures.has_near(one) for one in shown.hashes)):
            raise UnsuitableError(f"leak: nearly the same image stands in the split {self.split!r}")

    def add(self, shown: Shown) -> None:
        """Remember a prompt that was kept."""
        self.pictures.add(shown, len(self.prompts))
        self.prompts.add(shown.whole)
        if shown.prompt_id:
            self.prompt_ids.add(digest_of(shown.prompt_id))
        for one in shown.exact:
            self.images.add(digest_of(one))


def text_digest(row: PromptRow) -> int:
    """The digest of a row's question and choices that prompts of nearly the same words share."""
    return digest_of(*(plain(text) for text in (row.question, *row.choices)))


def plain(text: str) -> str:
    """`What IS 3 + 4?` and `what is 3 + 4` are the same, `3 - 4` is not: signs count, punctuation does not."""
    return " ".join(re.findall(r"\w+|[^\w\s.,;:!?'\"()]", unicodedata.normalize("NFKC", text).casefold()))


def _key(shown: Shown, place: int) -> int:
    return digest_of(str(shown.but_for_pictures), str(place))


def _is_flat(one: str) -> bool:
    return int(one, 16).bit_count() < FLAT
