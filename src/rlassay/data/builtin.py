"""Rows in the schemas of well-known sets, made here from handwritten digits and small numbers."""

from collections.abc import Iterator
from typing import Any

from rlassay.data.digits import QUESTIONS, draw_pair, generator, side_by_side, split_images
from rlassay.records import TRAINING_SPLITS

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
