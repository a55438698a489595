"""What the rows of a split are like, counted in one pass without holding them."""

import json
from collections import Counter
from itertools import accumulate
from typing import Any

from rlassay.data.journal import Kept, Outcome
from rlassay.records import LETTERS, Histogram, SplitFacts

DISTINCT_ANSWERS = 10_000
"""Free answers that are told apart; where there are more, none is counted."""
SHOWN_ANSWERS = 10
BARS = 12


class Tally:
    """Counts the outcomes of one split."""

    def __init__(self) -> None:
        self.rows = 0
        self._refused: Counter[str] = Counter()
        self._counts: dict[str, Counter[int]] = {name: Counter() for name in ("choices", "media", "question", "answer")}
        self._answers: Counter[str] = Counter()
        self._too_many = False

    def add(self, outcome: Outcome) -> None:
        """Count one more record."""
        if not isinstance(outcome, Kept):
            self._refused[outcome.reason] += 1
            return
        row: dict[str, Any] = json.loads(outcome.row)
        choices = row.get("choices", ())
        self.rows += 1
        self._counts["choices"][len(choices)] += 1
        self._counts["media"][len(row.get("media", ()))] += 1
        self._counts["question"][len(row["question"])] += 1
        self._counts["answer"][len(choices[LETTERS.index(row["answer"])] if choices else row["answer"])] += 1
        if not self._too_many:
            self._answers[row["answer"]] += 1
            self._too_many = len(self._answers) > DISTINCT_ANSWERS

    def refusals(self) -> str:
        """Why records were refused, most frequent first, for a message."""
        return ", ".join(f"{count} because {reason}" for reason, count in self._refused.most_common()) or "none"

    def facts(self) -> SplitFacts:
        """The counts so far."""
        shown = sorted(self._answers.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_ANSWERS]
        if all(answer in LETTERS for answer, _ in shown):
            shown.sort()
        return SplitFacts(
            rows=self.rows,
            refused=dict(sorted(self._refused.items())),
            choices={str(number): count for number, count in sorted(self._counts["choices"].items())},
            media={str(number): count for number, count in sorted(self._counts["media"].items())},
            answers={} if self._too_many else dict(shown),
            distinct_answers=None if self._too_many else len(self._answers),
            question_length=histogram(self._counts["question"]),
            answer_length=histogram(self._counts["answer"]),
        )


def histogram(counts: Counter[int]) -> Histogram | None:
    """Quartiles of whole numbers and at most BARS bars of equal width over their range; None without any."""
    if not counts:
        return None
    values = sorted(counts)
    below = list(accumulate(counts[value] for value in values))
    low, high = values[0], values[-1]
    width = -(-(high - low + 1) // BARS)
    bars: Counter[int] = Counter()
    for value in values:
        bars[(value - low) // width] += counts[value]
    return Histogram(
        quartiles=tuple(_quantile(values, below, quarter / 4) for quarter in range(5)),
        width=width,
        bars=tuple(bars[place] for place in range(max(bars) + 1)),
    )


def _quantile(values: list[int], below: list[int], share: float) -> int:
    """The smallest value that at least `share` of all do not exceed."""
    return next(value for value, count in zip(values, below, strict=True) if count >= share * below[-1])
