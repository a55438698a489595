"""Near-duplicates within a split, and training rows that an evaluation split holds too."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field

import numpy as np

from rlassay.data.drafts import RowRefusedError
from rlassay.records import PromptRow

NEAR = 8
"""Perceptual hashes of 256 bits that differ in at most as many belong to the same picture."""
FLAT = 8
"""A hash with fewer set bits shows nothing to recognise a picture by: such images are compared exactly only."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a prompt shows, in the forms in which two prompts are compared."""

    text: int
    """Digest of question and choices: letters and digits alone, in lower case."""
    exact: tuple[str, ...]
    """Digest of each image or path of each video."""
    hashes: tuple[np.ndarray, ...]
    """Perceptual hash of each image, (256,) booleans."""

    def resembles(self, other: "Shown") -> bool:
        """Whether the pictures are the same in number, and each near its counterpart."""
        if self.exact == other.exact:
            return True
        pairs = zip(self.hashes, other.hashes, strict=False)
        return len(self.hashes) == len(other.hashes) > 0 and all(_near(mine, its) for mine, its in pairs)


@dataclass(kw_only=True)
class Seen:
    """The prompts of one split."""

    split: str
    """Its name."""
    texts: set[int] = field(default_factory=set)
    """Digests of the prompts without media: all that is kept of them, so that a million rows take little memory."""
    by_text: dict[int, list[Shown]] = field(default_factory=dict)
    """Prompts with media by the digest of their text."""
    images: set[str] = field(default_factory=set)
    """Digests of all images."""
    hashes: list[np.ndarray] = field(default_factory=list)
    """Perceptual hashes of all images that are not flat, each packed to 32 bytes."""
    matrix: np.ndarray = field(default_factory=lambda: np.zeros((0, 32), dtype=np.uint8))
    """The same as one array, made again when it is asked for after more were added."""

    def refuse_duplicate(self, shown: Shown) -> None:
        """RowRefusedError for a prompt of the same text whose pictures look the same."""
        same = not shown.exact and shown.text in self.texts
        if same or any(shown.resembles(other) for other in self.by_text.get(shown.text, [])):
            raise RowRefusedError(f"duplicate: nearly the same prompt stands in the split {self.split!r}")

    def refuse_shared_image(self, shown: Shown) -> None:
        """RowRefusedError for an image that this split has too, even with another question."""
        if self.images.intersection(shown.exact) or any(self._has_near(one) for one in shown.hashes):
            raise RowRefusedError(f"leak: nearly the same image stands in the split {self.split!r}")

    def add(self, shown: Shown) -> None:
        """Remember a prompt that was kept."""
        if not shown.exact:
            self.texts.add(shown.text)
            return
        self.by_text.setdefault(shown.text, []).append(shown)
        self.images.update(shown.exact)
        self.hashes += [np.packbits(one) for one in shown.hashes if one.sum() >= FLAT]

    def _has_near(self, one: np.ndarray) -> bool:
        if not self.hashes or one.sum() < FLAT:
            return False
        if len(self.matrix) != len(self.hashes):
            self.matrix = np.asarray(self.hashes)
        different = np.bitwise_count(self.matrix ^ np.packbits(one)).sum(axis=1)
        return bool(different.min() <= NEAR)


def shown_by(row: PromptRow, exact: tuple[str, ...], hashes: tuple[np.ndarray, ...]) -> Shown:
    """The forms in which a row is compared."""
    words = "\n".join(plain(text) for text in (row.question, *row.choices))
    return Shown(text=int.from_bytes(hashlib.sha256(words.encode()).digest()[:8]), exact=exact, hashes=hashes)


def plain(text: str) -> str:
    """`What IS 3 + 4?` and `what is 3 + 4` are the same, `3 - 4` is not: signs count, punctuation does not."""
    return " ".join(re.findall(r"\w+|[^\w\s.,;:!?'\"()]", unicodedata.normalize("NFKC", text).casefold()))


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(min(one.sum(), other.sum()) >= FLAT and (one != other).sum() <= NEAR)
