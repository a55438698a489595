"""Finds near-duplicate prompts within a split, and training rows that leak from evaluation, by digests alone."""

import hashlib
import re
import unicodedata
from array import array
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlassay.data.raw_examples import RowRejectedError, UnsuitableRowError
from rlassay.records import PromptRow

if TYPE_CHECKING:
    Words = array[int]
else:  # Python 3.11 cannot subscript `array`
    Words = array

NEAR_BITS = 8
"""Two perceptual hashes of 256 bits that differ in at most this many belong to the same picture."""
FLAT_BITS = 8
"""A hash with fewer set bits has too little structure to recognise a picture; such images must match exactly."""
INITIAL_SLOTS = 1024


@dataclass(frozen=True, kw_only=True)
class PromptSignature:
    """The digests of a prompt's text and media by which prompts are compared."""

    text: int
    """Digest of question and choices, normalized by `normalized_text`."""
    exact: tuple[str, ...] = ()
    """SHA-256 of each image, then the path of each video."""
    hashes: tuple[str, ...] = ()
    """Perceptual hash of each image, 64 hex digits."""
    prompt_id: str = ""
    """The key that the source gave."""

    @cached_property
    def digest(self) -> int:
        """Digest of the text and all media."""
        return digest_of(str(self.text), *self.exact)

    @property
    def digest_without_images(self) -> int:
        """Digest of text, videos and number of images; prompts that differ only in their images share it."""
        return digest_of(str(self.text), str(len(self.hashes)), *self.exact[len(self.hashes) :])


class DigestSet:
    """A set of 64-bit digests in 8 to 32 bytes each (about 100 in a `set`), so that millions fit in memory.

    Open addressing: a digest is in the first free slot from the one that its lowest bits select.
    """

    def __init__(self) -> None:
        self._slots: Words = array("Q", bytes(8 * INITIAL_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: int) -> bool:
        return self._slots[self._slot(digest)] != 0

    def add(self, digest: int) -> bool:
        """Add a digest, 0 < digest < 2^64; whether it is new."""
        slot = self._slot(digest)
        if self._slots[slot]:
            return False
        self._slots[slot] = digest
        self._count += 1
        if 2 * self._count > len(self._slots):
            self._grow()
        return True

    def _slot(self, digest: int) -> int:
        slots, mask = self._slots, len(self._slots) - 1
        slot = digest & mask
        while slots[slot] not in (0, digest):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(16 * len(old)))
        for digest in old:
            if digest:
                self._slots[self._slot(digest)] = digest


@dataclass(kw_only=True)
class ImageIndex:
    """Perceptual hashes of a split's images, 48 bytes each."""

    hashes: bytearray = field(default_factory=bytearray)
    """32 bytes per image; flat ones are left out."""
    keys: Words = field(default_factory=lambda: array("Q"))
    """Per image, a digest of `digest_without_images` of its prompt and the image's position in it."""
    prompts: Words = field(default_factory=lambda: array("Q"))
    """Per image, the number of its prompt."""
    known_keys: DigestSet = field(default_factory=DigestSet)
    """All keys."""

    def add(self, signature: PromptSignature, number: int) -> None:
        """Add the images of prompt `number`."""
        for position, one in enumerate(signature.hashes):
            if not _is_flat(one):
                self.hashes += bytes.fromhex(one)
                self.keys.append(_key(signature, position))
                self.prompts.append(number)
                self.known_keys.add(self.keys[-1])

    def has_similar_prompt(self, signature: PromptSignature) -> bool:
        """Whether some prompt differs only in its images, and each of these is near its counterpart."""
        similar: set[int] | None = None
        for position, one in enumerate(signature.hashes):
            key = _key(signature, position)
            if _is_flat(one) or key not in self.known_keys:
                return False
            candidates = np.flatnonzero(np.frombuffer(self.keys, np.uint64) == key)
            near = candidates[self._distances(one, candidates) <= NEAR_BITS]
            prompts = {self.prompts[int(index)] for index in near}
            similar = prompts if similar is None else similar & prompts
        return bool(similar)

    def has_similar_image(self, one: str) -> bool:
        """Whether the hash is near that of any image."""
        if not self.hashes or _is_flat(one):
            return False
        return bool(self._distances(one, slice(None)).min() <= NEAR_BITS)

    def _distances(self, one: str, rows: NDArray[np.intp] | slice) -> NDArray[np.intp]:
        """Number of differing bits, of 256, between a hash and those at `rows`."""
        own = np.frombuffer(bytes.fromhex(one), np.uint64)
        others = np.frombuffer(self.hashes, np.uint64).reshape(-1, 4)[rows]
        return np.bitwise_count(others ^ own).sum(axis=1, dtype=np.intp)


@dataclass(kw_only=True)
class SplitIndex:
    """The prompts of one split: about 50 bytes for one without images, 200 with one."""

    split: str
    """Its name."""
    exact_images_only: bool = False
    """Whether images that only look alike count as different."""
    prompts: DigestSet = field(default_factory=DigestSet)
    """`PromptSignature.digest` of each prompt."""
    prompt_ids: DigestSet = field(default_factory=DigestSet)
    """Digests of the keys that the source gave."""
    media: DigestSet = field(default_factory=DigestSet)
    """Digests of all images and of the paths of all videos."""
    looks: ImageIndex = field(default_factory=ImageIndex)
    """Perceptual hashes of the images."""

    def reject_duplicate(self, signature: PromptSignature, kind: str = "duplicate") -> None:
        """UnsuitableRowError for a prompt with the same text and look, RowRejectedError for a key that is in use."""
        if signature.digest in self.prompts or (
            not self.exact_images_only and self.looks.has_similar_prompt(signature)
        ):
            raise UnsuitableRowError(f"{kind}: nearly the same prompt stands in the split {self.split!r}")
        if signature.prompt_id and digest_of(signature.prompt_id) in self.prompt_ids:
            raise RowRejectedError(
                f"prompt_id: {signature.prompt_id!r} belongs to another row of the split {self.split!r} too; "
                "give each row its own, or leave it out"
            )

    def reject_shared_image(self, signature: PromptSignature) -> None:
        """UnsuitableRowError for an image or video that this split has too, even with another question."""
        same = any(digest_of(one) in self.media for one in signature.exact)
        if same or (not self.exact_images_only and any(self.looks.has_similar_image(one) for one in signature.hashes)):
            raise UnsuitableRowError(f"leak: nearly the same image stands in the split {self.split!r}")

    def add(self, signature: PromptSignature) -> None:
        """Add an accepted prompt."""
        self.looks.add(signature, len(self.prompts))
        self.prompts.add(signature.digest)
        if signature.prompt_id:
            self.prompt_ids.add(digest_of(signature.prompt_id))
        for one in signature.exact:
            self.media.add(digest_of(one))


def digest_of(*parts: str) -> int:
    """The first 64 bits of the SHA-256 of the parts, never 0.

    Two of a million texts collide by chance in one of 10^7 data sets.
    """
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) or 1


def text_digest(row: PromptRow) -> int:
    """Digest of a row's normalized question and choices."""
    return digest_of(*(normalized_text(text) for text in (row.question, *row.choices)))


def normalized_text(text: str) -> str:
    """Text without case, spacing and punctuation: `What IS 3 + 4?` equals `what is 3+4`; `3 - 4` differs."""
    return " ".join(re.findall(r"\w+|[^\w\s.,;:!?'\"()]", unicodedata.normalize("NFKC", text).casefold()))


def _key(signature: PromptSignature, position: int) -> int:
    return digest_of(str(signature.digest_without_images), str(position))


def _is_flat(one: str) -> bool:
    return int(one, 16).bit_count() < FLAT_BITS
