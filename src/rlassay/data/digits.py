"""The built-in source: two real handwritten digits side by side, and a question about them with lettered options."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from rlassay.config.data import Digits, ImagePolicy
from rlassay.data.drafts import Draft, Source
from rlassay.prompts import demonstrate
from rlassay.records import LETTERS, TRAINING_SPLITS

QUESTIONS = {
    "left": "Which digit is on the left?",
    "right": "Which digit is on the right?",
    "larger": "Which digit is larger?",
    "smaller": "Which digit is smaller?",
}


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The digit images that one part of the data draws on."""

    pixels: np.ndarray
    """(1797, 8, 8) grey levels 0..16, all images of the data set."""
    of_digit: list[np.ndarray]
    """For each digit 0..9, the indices of this pool's images that show it."""


def digits(section: Digits) -> Source:
    """The endless rows of every split.

    The images are parted by digit into training ones and held-out ones; `sft` and `train` draw on the first, every
    other split on the second. Question kinds and gold letters take turns, so that every split is balanced in both.
    Digits, distractors and images are drawn uniformly, by a generator of each split's own: enlarging one split leaves
    the others as they are, but for a prompt that is drawn twice, which stands in the first of the two splits.

    Source: the handwritten digits of scikit-learn (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998).
    """
    training, held_out = split_images(section.seed, section.held_out)
    pools = {split: training if split in TRAINING_SPLITS else held_out for split in section.splits}
    drafts = {split: partial(_draw_rows, section, pool, split) for split, pool in pools.items()}
    return Source(drafts=drafts, images=ImagePolicy(), drawn=True)


def split_images(seed: int, held_out: float) -> tuple[Pool, Pool]:
    """Training images and held-out images; each digit is parted by the same share, and at least one image is held out.

    Args:
        seed: decides which images are held out.
        held_out: share of each digit's images that is held out.
    """
    flat, shown = load_digits(return_X_y=True)
    pixels = np.asarray(flat).reshape(-1, 8, 8)
    rng = generator(seed, "images")
    training: list[np.ndarray] = []
    held: list[np.ndarray] = []
    for digit in range(10):
        shuffled = rng.permutation(np.flatnonzero(np.asarray(shown) == digit))
        count = min(max(1, round(held_out * len(shuffled))), len(shuffled) - 1)
        held.append(np.sort(shuffled[:count]))
        training.append(np.sort(shuffled[count:]))
    return Pool(pixels=pixels, of_digit=training), Pool(pixels=pixels, of_digit=held)


def _draw_rows(section: Digits, pool: Pool, split: str) -> Iterator[Draft]:
    rng = generator(section.seed, split)
    kinds = list(QUESTIONS)
    position = 0
    while True:
        turn, kind = divmod(position, len(kinds))
        gold = turn % section.num_choices
        row = _draw_row(kinds[kind], gold, section.num_choices, pool, rng)
        yield _with_demonstration(row, section, rng) if split == "sft" else row
        position += 1


def _draw_row(kind: str, gold: int, num_choices: int, pool: Pool, rng: np.random.Generator) -> Draft:
    target, left, right = draw_pair(kind, rng)
    options = [int(digit) for digit in rng.permutation(10) if digit != target][: num_choices - 1]
    options.insert(gold, target)
    shown = [int(rng.choice(pool.of_digit[digit])) for digit in (left, right)]
    return Draft(
        question=QUESTIONS[kind],
        answer=LETTERS[gold],
        choices=tuple(str(option) for option in options),
        images=(side_by_side(pool.pixels[shown[0]], pool.pixels[shown[1]]),),
        meta={"kind": kind, "left": left, "right": right, "left_image": shown[0], "right_image": shown[1]},
    )


def draw_pair(kind: str, rng: np.random.Generator) -> tuple[int, int, int]:
    """Two different digits and the one that is asked for: target, left, right.

    The target comes first and uniformly, so that the options alone do not tell it (`larger` has no 0, `smaller` no 9).
    """
    if kind in ("left", "right"):
        target = int(rng.integers(10))
        other = (target + int(rng.integers(1, 10))) % 10
        on_left = kind == "left"
    else:
        target = int(rng.integers(1, 10)) if kind == "larger" else int(rng.integers(9))
        other = int(rng.integers(target)) if kind == "larger" else int(rng.integers(target + 1, 10))
        on_left = bool(rng.integers(2))
    return (target, target, other) if on_left else (target, other, target)


def _with_demonstration(row: Draft, section: Digits, rng: np.random.Generator) -> Draft:
    """Demonstrations of mixed quality: guessed at once, thought and then wrong, thought and right.

    Perfect ones would leave reinforcement learning nothing to find (measured: no gain in 100 steps). A thought reads
    both digits from left to right and names the letter right after the one asked for, as in `3 7B`: a small model
    learns to find the letter of a digit within 300 steps where it follows that digit at once, and not within 1,200
    where tags stand between them, nor within 300 where the digit is repeated for it, as in `3 7 7B`.
    """
    draw = rng.random()
    letters = LETTERS[: len(row.choices)]
    asked = row.choices[letters.index(row.answer)]
    read = (str(row.meta["left"]), str(row.meta["right"]))
    thinking: str | None = " ".join(digit + row.answer if digit == asked else digit for digit in read)
    if draw < section.guess_share:
        style, thinking, letter = "guess", None, str(rng.choice(list(letters)))
    elif draw < section.guess_share + section.misread_share:
        style, letter = "misread", str(rng.choice([letter for letter in letters if letter != row.answer]))
    else:
        style, letter = "right", row.answer
    meta = {**row.meta, "demonstration": style}
    return replace(row, demonstration=demonstrate(letter, thinking), meta=meta)


def side_by_side(left: np.ndarray, right: np.ndarray) -> bytes:
    """A PNG of 16x16 RGB pixels: two 8x8 digits (grey levels 0..16), each stretched to twice its height."""
    pair = np.concatenate([left, right], axis=1).repeat(2, axis=0)
    grey = Image.fromarray(np.rint(pair * (255 / 16)).astype(np.uint8))
    encoded = io.BytesIO()
    grey.convert("RGB").save(encoded, format="PNG")
    return encoded.getvalue()


def generator(seed: int, purpose: str) -> np.random.Generator:
    """A generator of a purpose's own, so that drawing more for one changes nothing for another."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8])])
