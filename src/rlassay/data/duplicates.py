"""Find near-duplicate prompts in a split, and training rows that leak from evaluation.

Digests alone are compared.
"""

import hashlib
import re
import unicodedata
from array import array
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rlassay.config.data import RepeatRule
from rlassay.data.raw_examples import RowRejectedError, UnsuitableRowError
from rlassay.records import PairedBy, PromptRow

if TYPE_CHECKING:
    Words = array[int]
else:  # Python 3.11 cannot subscript `array`
    Words = array

NEAR_BITS = 8
"""Most bits in which two perceptual hashes of the same picture differ, of 256."""
FLAT_BITS = 8
"""A hash with fewer set bits has too little structure to recognise a picture; such images must match exactly."""
INITIAL_SLOTS = 1024


@dataclass(frozen=True, kw_only=True)
class PromptSignature:
    """The digests of a prompt's text and media by which prompts are compared."""

    text: int
    """Digest of question and choices, normalized by `normalized_text`."""
    plain: int = 0
    """Digest of question and choices as they are."""
    answer: int = 0
    """Digest of the gold answer."""
    exact: tuple[str, ...] = ()
    """SHA-256 of each image, then of each video."""
    hashes: tuple[str, ...] = ()
    """Perceptual hash of each image, 64 hex digits."""
    prompt_id: str = ""
    """The key that the source gave."""

    @cached_property
    def digest(self) -> int:
        """Digest of the normalized text and all media."""
        return digest_of(str(self.text), *self.exact)

    @cached_property
    def plain_digest(self) -> int:
        """Digest of the text as it is and all media."""
        return digest_of(str(self.plain), *self.exact)

    @property
    def digest_without_images(self) -> int:
        """Digest of text, answer, videos and number of images; rows that differ only in their images share it."""
        return digest_of(str(self.text), str(self.answer), str(len(self.hashes)), *self.exact[len(self.hashes) :])


class DigestSet:
    """A compact set of 64-bit digests.

    One takes 8 to 32 bytes, instead of about 100 in a `set`. Open addressing: a digest is in the first free slot from
    the one that its lowest bits select.
    """

    def __init__(self) -> None:
        self._slots: Words = array("Q", bytes(8 * INITIAL_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: int) -> bool:
        return self._slots[self._slot(digest)] != 0

    def add(self, digest: int) -> bool:
        """Add a digest, 0 < digest < 2^64; False if it was there already."""
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


class DigestMap(DigestSet):
    """A map from 64-bit digests to row numbers, the first number of each digest."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: Words = array("I", bytes(4 * INITIAL_SLOTS))

    def put(self, digest: int, number: int) -> None:
        """Store a digest's number, unless it has one."""
        if self.add(digest):
            self._numbers[self._slot(digest)] = number

    def get(self, digest: int) -> int | None:
        """The number of a digest, if it is stored."""
        slot = self._slot(digest)
        return self._numbers[slot] if self._slots[slot] else None

    def _grow(self) -> None:
        # `add` grows the table before the new digest has its number, which `put` then stores in its new slot
        digests, numbers = self._slots, self._numbers
        super()._grow()
        self._numbers = array("I", bytes(4 * len(self._slots)))
        for digest, number in zip(digests, numbers, strict=True):
            if digest:
                self._numbers[self._slot(digest)] = number


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

    def similar_prompt(self, signature: PromptSignature) -> int | None:
        """The number of a row that differs only in its images, else None.

        Each image is near its counterpart.
        """
        similar: set[int] | None = None
        for position, one in enumerate(signature.hashes):
            key = _key(signature, position)
            if _is_flat(one) or key not in self.known_keys:
                return None
            candidates = np.flatnonzero(np.frombuffer(self.keys, np.uint64) == key)
            near = candidates[self._distances(one, candidates) <= NEAR_BITS]
            prompts = {self.prompts[int(index)] for index in near}
            similar = prompts if similar is None else similar & prompts
        return min(similar, default=None) if similar else None

    def _distances(self, one: str, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Number of differing bits, of 256, between a hash and those at `rows`."""
        own = np.frombuffer(bytes.fromhex(one), np.uint64)
        others = np.frombuffer(self.hashes, np.uint64).reshape(-1, 4)[rows]
        return np.bitwise_count(others ^ own).sum(axis=1, dtype=np.intp)


@dataclass(kw_only=True)
class SplitIndex:
    """Index of the rows of one split, for the comparison with other rows.

    It takes 25 to 50 bytes for a row without images where rows are compared by one rule.
    """

    split: str
    """Its name."""
    rules: frozenset[RepeatRule] = frozenset({"exact", "near"})
    """The rules by which rows will be compared with this split."""
    rows: int = 0
    """Number of rows."""
    prompts: DigestMap = field(default_factory=DigestMap)
    """`PromptSignature.digest` of each row -> its number."""
    plain_prompts: DigestMap = field(default_factory=DigestMap)
    """`PromptSignature.plain_digest` of each row -> its number."""
    prompt_ids: DigestSet = field(default_factory=DigestSet)
    """Digests of the keys that the source gave."""
    keys: DigestSet = field(default_factory=DigestSet)
    """Digests of all keys, if the split may hold the same prompt twice."""
    media: DigestMap = field(default_factory=DigestMap)
    """Digest of each image and of each video's path -> number of its first row."""
    looks: ImageIndex = field(default_factory=ImageIndex)
    """Perceptual hashes of the images."""

    def reject_duplicate(
        self, signature: PromptSignature, rule: RepeatRule = "near", kind: Literal["duplicate", "leak"] = "duplicate"
    ) -> None:
        """Raise UnsuitableRowError for a row that the split has, RowRejectedError for a used key.

        The rule decides whether the split has it. `exact` compares texts and media as they are; `near` compares
        normalized texts with media as they are, and normalized texts and answers with images that look alike. Similar
        images alone reject nothing.
        """
        if rule == "exact" and (number := self.plain_prompts.get(signature.plain_digest)) is not None:
            raise self._repeated(f"{kind}: the same prompt is in the split {self.split!r}", "prompt", number)
        reason = f"{kind}: nearly the same prompt is in the split {self.split!r}"
        if rule == "near" and (number := self.prompts.get(signature.digest)) is not None:
            raise self._repeated(reason, "prompt", number)
        if rule == "near" and (number := self.looks.similar_prompt(signature)) is not None:
            raise self._repeated(reason, "look", number)
        if signature.prompt_id and digest_of(signature.prompt_id) in self.prompt_ids:
            raise RowRejectedError(
                f"prompt_id: {signature.prompt_id!r} belongs to another row of the split {self.split!r} too; "
                "give each row its own, or leave it out"
            )

    def reject_shared_image(self, signature: PromptSignature) -> None:
        """Raise UnsuitableRowError for an image or video that this split also has.

        The question may be another.
        """
        for one in signature.exact:
            if (number := self.media.get(digest_of(one))) is not None:
                raise self._repeated(f"leak: the same image or clip is in the split {self.split!r}", "image", number)

    def add(self, signature: PromptSignature) -> None:
        """Add an accepted row."""
        if "near" in self.rules:
            self.looks.add(signature, self.rows)
        if "near" in self.rules:
            self.prompts.put(signature.digest, self.rows)
        if "exact" in self.rules:
            self.plain_prompts.put(signature.plain_digest, self.rows)
        if signature.prompt_id:
            self.prompt_ids.add(digest_of(signature.prompt_id))
        for one in signature.exact:
            self.media.put(digest_of(one), self.rows)
        self.rows += 1

    def own_key(self, key: str) -> str:
        """A key that no row of the split has: `key`, or `key-2`, `key-3`, ... for a repeated prompt."""
        copy, own = 1, key
        while digest_of(own) in self.keys:
            copy += 1
            own = f"{key}-{copy}"
        return own

    def _repeated(self, reason: str, by: PairedBy, number: int) -> UnsuitableRowError:
        error = UnsuitableRowError(reason)
        error.match = (by, self.split, number)
        return error


def digest_of(*parts: str) -> int:
    """The first 64 bits of the SHA-256 of the parts, never 0.

    Two of a million texts collide by chance in one of 10^7 data sets.
    """
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) or 1


def text_digest(row: PromptRow) -> int:
    """Digest of a row's normalized question and choices."""
    return digest_of(*(normalized_text(text) for text in (row.question, *row.choices)))


def plain_digest(row: PromptRow) -> int:
    """Digest of a row's question and choices as they are."""
    return digest_of(row.question, *row.choices)


def normalized_text(text: str) -> str:
    """Text without the case of words, spacing and the punctuation of sentences.

    `What IS 3 + 4?` and `what is 3+4` are the same. Anything that may belong to mathematics stays: digits, single
    letters and their case, signs, brackets, primes, superscripts, subscripts, and points, commas and exclamation marks
    beside numbers or variables. So `5² + 1` is not `52 + 1`, `5!` is not `5`, `f'(2)` is not `f(2)`, and `3 -4` is not
    `3 - 4`.
    """
    plain = text if text.isascii() else _plain(text)
    formula = _FORMULA.search(plain) is not None
    tokens: list[str] = []
    for match in _TOKEN.finditer(plain):
        token = match[0]
        if _ends_sentence(token, match, tokens) or _quotes(token, match):
            continue
        signs = token in "+-" and _is_sign(match)
        tokens.append(f"~{token}" if signs else _folded(token, formula))
    return " ".join(tokens)


_TYPOGRAPHY = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2212": "-"})
_TOKEN = re.compile(r"\d+(?:[.,:]\d+)*\w*|\.\d+\w*|[^\W\d]\w*|[^\w\s]")
_FORMULA = re.compile(r"[\d+*/=^<>\\$_{}()\[\]|~%√∑∫∏≤≥≠±×÷·∈∞]")
_WORDS = """
am an and are as at be but by can did do does find for from had has have he her his how if in is it its let me my no not
of on or our she so that the their them then there these they this to up us was we were what when where which who why
will with you your
"""
_COMMON = frozenset(_WORDS.split())
"""Words whose case never matters; `a` and `I` may be variables."""


def _plain(text: str) -> str:
    """Text with composed characters, ordinary widths, and the quotes and minus of ASCII."""
    return "".join(map(_narrow, unicodedata.normalize("NFC", text))).translate(_TYPOGRAPHY)


def _narrow(character: str) -> str:
    """A full-width or half-width form as the ordinary character; superscripts and the like stay as they are."""
    if unicodedata.decomposition(character).startswith(("<wide>", "<narrow>")):
        return unicodedata.normalize("NFKC", character)
    return character


def _around(match: re.Match[str]) -> tuple[str, str]:
    """The characters before and after a token, empty at the ends of the text."""
    text, start, end = match.string, match.start(), match.end()
    return text[max(0, start - 1) : start], text[end : end + 1]


def _ends_sentence(token: str, match: re.Match[str], tokens: list[str]) -> bool:
    """Whether a mark is the punctuation of a sentence rather than part of a formula."""
    if token not in ".,;:!?":
        return False
    before, after = _around(match)
    if after.strip(" \t\n\r.,;:!?\"')"):
        return False
    if tokens and _is_word(tokens[-1]):
        return True
    return token in ".?" and (before.isalnum() or before in tuple(")]}$%'\""))


def _quotes(token: str, match: re.Match[str]) -> bool:
    """Whether a double quote encloses words; beside a number it may mean inches."""
    if token != '"':
        return False
    before, after = _around(match)
    return not before.isdigit() and ((not before.strip() and after.isalpha()) or not after.strip(".,?"))


def _is_sign(match: re.Match[str]) -> bool:
    """Whether a sign belongs to the number after it alone, as in `3 -4`."""
    before, after = _around(match)
    return bool(match.start()) and before.isspace() and bool(after.strip())


def _is_word(token: str) -> bool:
    return token.casefold() in _COMMON or (len(token) >= 3 and token.isalpha()) or any(c >= "\u3400" for c in token)


def _folded(token: str, formula: bool) -> str:
    """A word without its case; names of variables, points and units keep theirs, and so do capitals in formulas."""
    small = token.casefold()
    if small in _COMMON or (len(token) >= 3 and token.isalpha() and (token.istitle() or token.islower())):
        return small
    spelled = len(token) >= 3 and token.isalpha() and not _FOLLOWING.search(small) and set(small) & set("aeiou")
    return small if spelled and not formula else token


_FOLLOWING = re.compile("|".join("abcdefghijklmnopqrstuvwxyz"[at : at + 3] for at in range(24)))
"""Letters in alphabetical order, which name points: `ABC`."""


def _key(signature: PromptSignature, position: int) -> int:
    return digest_of(str(signature.digest_without_images), str(position))


def _is_flat(one: str) -> bool:
    return int(one, 16).bit_count() < FLAT_BITS
