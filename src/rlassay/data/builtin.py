"""Built-in rows: the digits study, and rows like A-OKVQA and GSM8K.

They are made from handwritten digits and small numbers.
"""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rlassay.config.data import Digits, ImagePolicy
from rlassay.data.raw_examples import RawExample, Source
from rlassay.prompts import demonstrate
from rlassay.records import LETTERS, TRAINING_SPLITS

QUESTIONS = {
    "left": "Which digit is on the left?",
    "right": "Which digit is on the right?",
    "larger": "Which digit is larger?",
    "smaller": "Which digit is smaller?",
}
HELD_OUT = 0.3
"""Share of the digit images and number pairs that are for evaluation splits only."""
PEOPLE = ("Ana", "Ben", "Chen", "Dina")
THINGS = ("apples", "books", "coins", "pens")
WORKED_SHARE = 0.6
"""Share of the sums whose answer shows the working; the others state only the number."""


@dataclass(frozen=True, kw_only=True)
class DigitPool:
    """The digit images from which training rows, or evaluation rows, are drawn."""

    pixels: NDArray[np.float64]
    """(1797, 8, 8) grey levels 0..16, all images of the data set."""
    indices_by_digit: list[NDArray[np.int64]]
    """For each digit 0..9, the indices of this pool's images of it."""


def digits(section: Digits) -> Source:
    """Endless rows of two digits side by side, with a question and lettered options.

    Each digit's images are divided into training and held-out images; `sft` and `train` draw from the first, all other
    splits from the second. Questions and gold letters alternate, so that every split is balanced in both. Digits,
    distractors and images are drawn uniformly, with a separate generator per split: a larger split leaves the others
    unchanged, except that a prompt drawn for two splits is kept only in the first.

    Source: the handwritten digits of scikit-learn (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998).
    """
    training, held_out = split_images(section.seed, section.held_out)
    pools = {split: training if split in TRAINING_SPLITS else held_out for split in section.splits}
    examples = {split: partial(_draw_rows, section, pool, split) for split, pool in pools.items()}
    return Source(examples=examples, images=ImagePolicy(), generated=True, drawn=True)


def split_images(seed: int, held_out: float) -> tuple[DigitPool, DigitPool]:
    """Split the images into training and held-out ones, with the same share for each digit.

    Args:
        seed: selects the held-out images.
        held_out: share of each digit's images that is held out; each side gets at least one.
    """
    # Here, since scikit-learn takes a second and 100 MB to import, which other sources do without.
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    flat, labels = cast("tuple[NDArray[np.float64], NDArray[np.int64]]", load_digits(return_X_y=True))
    pixels = flat.reshape(-1, 8, 8)
    rng = rng_for(seed, "images")
    training: list[NDArray[np.int64]] = []
    held: list[NDArray[np.int64]] = []
    for digit in range(10):
        shuffled = rng.permutation(np.flatnonzero(labels == digit))
        count = min(max(1, round(held_out * len(shuffled))), len(shuffled) - 1)
        held.append(np.sort(shuffled[:count]))
        training.append(np.sort(shuffled[count:]))
    return DigitPool(pixels=pixels, indices_by_digit=training), DigitPool(pixels=pixels, indices_by_digit=held)


def _draw_rows(section: Digits, pool: DigitPool, split: str) -> Iterator[RawExample]:
    rng = rng_for(section.seed, split)
    kinds = list(QUESTIONS)
    number = 0
    while True:
        turn, kind = divmod(number, len(kinds))
        row = _draw_row(kinds[kind], turn % section.num_choices, section.num_choices, pool, rng)
        yield _with_demonstration(row, section, rng) if split == "sft" else row
        number += 1


def _draw_row(kind: str, gold: int, num_choices: int, pool: DigitPool, rng: np.random.Generator) -> RawExample:
    target, left, right = draw_pair(kind, rng)
    options = [int(digit) for digit in rng.permutation(10) if digit != target][: num_choices - 1]
    options.insert(gold, target)
    left_image, right_image = (int(rng.choice(pool.indices_by_digit[digit])) for digit in (left, right))
    return RawExample(
        question=QUESTIONS[kind],
        answer=LETTERS[gold],
        choices=tuple(str(option) for option in options),
        images=(side_by_side(pool.pixels[left_image], pool.pixels[right_image]),),
        meta={"kind": kind, "left": left, "right": right, "left_image": left_image, "right_image": right_image},
    )


def draw_pair(kind: str, rng: np.random.Generator) -> tuple[int, int, int]:
    """Two different digits: the target, which answers the question, then the left and right digit.

    The target is drawn first and uniformly, so that the options alone do not reveal it (`larger` has no 0, `smaller`
    no 9).
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


def _with_demonstration(row: RawExample, section: Digits, rng: np.random.Generator) -> RawExample:
    """The row with a demonstration of mixed quality.

    It is a guess, a thought with a wrong answer, or a thought with the right one. Perfect demonstrations would leave
    reinforcement learning nothing to improve (measured: no gain in 100 steps). A thought reads both digits from left to
    right and puts the letter right after the target digit, as in `3 7B`. A small model learns to find a digit's letter
    within 300 steps if it follows the digit directly, but not within 1,200 with tags between them, nor within 300 if
    the digit is repeated before the letter, as in `3 7 7B`.
    """
    draw = rng.random()
    letters = LETTERS[: len(row.choices)]
    target = row.choices[letters.index(row.answer)]
    read = (str(row.meta["left"]), str(row.meta["right"]))
    thinking: str | None = " ".join(digit + row.answer if digit == target else digit for digit in read)
    if draw < section.guess_share:
        style, thinking, letter = "guess", None, str(rng.choice(list(letters)))
    elif draw < section.guess_share + section.misread_share:
        style, letter = "misread", str(rng.choice([letter for letter in letters if letter != row.answer]))
    else:
        style, letter = "right", row.answer
    meta = {**row.meta, "demonstration": style}
    return replace(row, demonstration=demonstrate(letter, thinking), meta=meta)


def generate_aokvqa_rows(seed: int, split: str) -> Iterator[dict[str, Any]]:
    """Endless records in the schema of A-OKVQA: two handwritten digits, four options, one rationale."""
    pool = split_images(seed, HELD_OUT)[0 if split in TRAINING_SPLITS else 1]
    rng = rng_for(seed, f"aokvqa {split}")
    number = 0
    while True:
        kind, gold = list(QUESTIONS)[number % len(QUESTIONS)], int(rng.integers(4))
        target, left, right = draw_pair(kind, rng)
        choices = [str(digit) for digit in rng.permutation(10) if digit != target][:3]
        choices.insert(gold, str(target))
        images = [pool.pixels[int(rng.choice(pool.indices_by_digit[digit]))] for digit in (left, right)]
        yield {
            "image": {"bytes": side_by_side(*images), "path": None},
            "question_id": f"digits-{split}-{number}",
            "question": QUESTIONS[kind],
            "choices": choices,
            "correct_choice_idx": gold,
            "rationales": [f"The left digit is {left} and the right digit is {right}."],
        }
        number += 1


def generate_gsm8k_rows(seed: int, split: str) -> Iterator[dict[str, Any]]:
    """Endless records in the schema of GSM8K: sums and differences of two-digit numbers.

    Most have their working. A model trained on these answers can calculate but often guesses, which leaves
    reinforcement learning something to improve. Each pair of numbers is either for training or for evaluation, for both
    operations.
    """
    held_out = rng_for(seed, "pairs").random((100, 100)) < HELD_OUT
    rng = rng_for(seed, f"gsm8k {split}")
    while True:
        less, more = sorted(int(number) for number in rng.integers(10, 100, 2))
        person, thing = str(rng.choice(PEOPLE)), str(rng.choice(THINGS))
        adds = bool(rng.integers(2))
        if bool(held_out[less, more]) == (split in TRAINING_SPLITS):
            continue
        event = "gets" if adds else "gives away"
        result = more + less if adds else more - less
        working = written_arithmetic(more, less, adds) if rng.random() < WORKED_SHARE else ""
        yield {
            "question": f"{person} has {more} {thing} and {event} {less}. How many {thing} does {person} have now?",
            "answer": f"{working}\n#### {result}",
        }


def written_arithmetic(more: int, less: int, adds: bool) -> str:
    """Column arithmetic, ones before tens: `9+4=13, 8+3+1=12` for 89 + 34.

    For 82 - 37 it is `12-7=5, 8-1-3=4`. A built-in model reaches 95 % accuracy after 300 batches of 64, but 5 % after
    600 batches of `89+34=123` alone.
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


def side_by_side(left: NDArray[np.float64], right: NDArray[np.float64]) -> bytes:
    """A PNG of two 8x8 digits side by side, in 16x16 RGB pixels.

    The digits have grey levels 0..16; each is stretched to twice its height.
    """
    pair = np.concatenate([left, right], axis=1).repeat(2, axis=0)
    grey = Image.fromarray(np.rint(pair * (255 / 16)).astype(np.uint8))
    encoded = io.BytesIO()
    grey.convert("RGB").save(encoded, format="PNG")
    return encoded.getvalue()


def rng_for(seed: int, purpose: str) -> np.random.Generator:
    """A separate generator per purpose: drawing more for one changes nothing for another."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8])])
