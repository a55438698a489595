"""Rows in the schemas of well-known sets, made here from handwritten digits and small numbers."""

from collections.abc import Iterator
from typing import Any

from rlassay.data.digits import QUESTIONS, draw_pair, generator, side_by_side, split_images
from rlassay.data.intake import TRAINING_SPLITS

HELD_OUT = 0.3
"""Share of the digit images, and of the pairs of numbers, that only evaluation splits show."""
PEOPLE = ("Ana", "Ben", "Chen", "Dina")
THINGS = ("apples", "books", "coins", "pens")


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
    """Endless records in the schema of GSM8K: sums and differences of numbers up to 99.

    A pair of numbers belongs to training or to evaluation, whatever is asked about it.
    """
    pairs = generator(seed, "pairs").random((100, 100)) < HELD_OUT
    rng = generator(seed, f"gsm8k {split}")
    while True:
        less, more = sorted(int(number) for number in rng.integers(1, 100, 2))
        person, thing = str(rng.choice(PEOPLE)), str(rng.choice(THINGS))
        adds = bool(rng.integers(2))
        if bool(pairs[less, more]) == (split in TRAINING_SPLITS):
            continue
        term, result = (f"{more}+{less}", more + less) if adds else (f"{more}-{less}", more - less)
        event = "gets" if adds else "gives away"
        yield {
            "question": f"{person} has {more} {thing} and {event} {less}. How many {thing} does {person} have now?",
            "answer": f"{person} has {term}=<<{term}={result}>>{result} {thing}.\n#### {result}",
        }
