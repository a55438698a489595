"""Rows in the schemas of well-known sets, made here from handwritten digits and small numbers."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from rlassay.config.data import Digits, ImagePolicy
from rlassay.data.drafts import Draft, Source
from rlassay.prompts import demonstrate
from rlassay.records import LETTERS, TRAINING_SPLITS

# MERGED FROM data.digits: The built-in source: two real handwritten digits side by side, and a question about
# them with lettered options.

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


# MERGED FROM data.builtin: Rows in the schemas of well-known sets, made here from handwritten digits and small
# numbers.

HELD_OUT = 0.3
"""Share of the digit images, and of the pairs of numbers, that only evaluation splits show."""
PEOPLE = ("Ana", "Ben", "Chen", "Dina")
THINGS = ("apples", "books", "coins", "pens")
WORKED = 0.6
"""Share of the sums whose answer shows the working; the others state the number alone."""


def digit_photographs(seed: int, split: str) -> Iterator[dict[str, Any]]:
    """Endless records in the schema of A-OKVQA: two handwritten digits, four options, one rationale."""
    pool = split_images(seed, HELD_OUT)[0 if split in TRAINING_SPLITS else 1]
    rng = generator(seed, f"aokvqa {split}")
    number = 0
    while True:
        kind, idx = list(QUESTIONS)[number % len(QUESTIONS)], int(rng.integers(4))
        target, left, right = draw_pair(kind, rng)
        choices = [str(digit) for digit in rng.permutation(10) if digit != target][:3]
        choices.insert(idx, str(target))
        shown = [pool.pixels[int(rng.choice(pool.of_digit[digit]))] for digit in (left, right)]
        yield {
            "image": {"bytes": side_by_side(*shown), "path": None},
            "question_id": f"digits-{split}-{number}",
            "question": QUESTIONS[kind],
            "choices": choices,
            "correct_choice_idx": idx,
            "rationales": [f"The left digit is {left} and the right digit is {right}."],
        }
        number += 1


def sums(seed: int, split: str) -> Iterator[dict[str, Any]]:
    """Endless records in the schema of GSM8K: sums and differences of two-digit numbers, most of them worked.

    Who imitates them knows how to calculate and often guesses all the same: that leaves reinforcement learning
    something to find. A pair of numbers belongs to training or to evaluation, whatever is asked about it.
    """
    pairs = generator(seed, "pairs").random((100, 100)) < HELD_OUT
    rng = generator(seed, f"gsm8k {split}")
    while True:
        less, more = sorted(int(number) for number in rng.integers(10, 100, 2))
        person, thing = str(rng.choice(PEOPLE)), str(rng.choice(THINGS))
        adds = bool(rng.integers(2))
        if bool(pairs[less, more]) == (split in TRAINING_SPLITS):
            continue
        event = "gets" if adds else "gives away"
        result = more + less if adds else more - less
        working = in_columns(more, less, adds) if rng.random() < WORKED else ""
        yield {
            "question": f"{person} has {more} {thing} and {event} {less}. How many {thing} does {person} have now?",
            "answer": f"{working}\n#### {result}",
        }


def in_columns(more: int, less: int, adds: bool) -> str:
    """Written arithmetic, ones before tens: `9+4=13, 8+3+1=12` for 89 + 34 and `12-7=5, 8-1-3=4` for 82 - 37.

    From 300 batches of 64 a built-in model learns to be right in 95 %; from 600 of `89+34=123` alone, in 5 %.
    """
    (tens, ones), (other_tens, other_ones) = divmod(more, 10), divmod(less, 10)
    if adds:
        carries = ones + other_ones >= 10
        left, right = f"{ones}+{other_ones}", f"{tens}+{other_tens}" + "+1" * carries
        results = ones + other_ones, tens + other_tens + carries
    else:
        borrows = ones < other_ones
        left, right = f"{ones + 10 * borrows}-{other_ones}", f"{tens}" + "-1" * borrows + f"-{other_tens}"
        results = ones + 10 * borrows - other_ones, tens - borrows - other_tens
    return ", ".join(f"{term}=<<{term}={value}>>{value}" for term, value in zip((left, right), results, strict=True))
