"""The words with most and least credit in each arm, over all its watched completions."""

from collections import defaultdict

import numpy as np

from rlassay.report.credit_reading import read_watched, watched_steps
from rlassay.report.credit_records import ArmWords, WordCredit
from rlassay.report.credit_words import mean_over, pieces, same_word
from rlassay.report.estimates import over_seeds, tidy
from rlassay.report.gather import Results, Row
from rlassay.report.reading import blaming

MIN_COUNT = 10
"""Occurrences from which on a word is ranked."""
RANKED = 5
"""Words at either end."""
MAX_STEPS = 12
"""Shards read of each run; of more, as many evenly spaced ones."""
EVEN = 1e-6
"""Weights that differ less are alike."""

Tally = dict[str, tuple[float, int]]
"""Word -> sum of its weights, and how often it occurred."""


def rank_words(results: Results, confidence: float) -> list[ArmWords]:
    """Most and least credit per arm, in the study's order; an arm without watched completions is left out."""
    rows = [results.rows[name] for name in results.study.arms]
    ranked = [_arm(row, [_tally(results, folder) for folder in row.folders.values()], confidence) for row in rows]
    return [one for one in ranked if one.num_completions]


def _tally(results: Results, folder: str) -> tuple[Tally, int]:
    """The words of one run, and how many completions they are from."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    completions = 0
    shards = list(watched_steps(results.layout.tokens(folder)).values())
    places = sorted({round(place) for place in np.linspace(0, len(shards) - 1, min(MAX_STEPS, len(shards)))})
    for place in places:
        with blaming(shards[place], results.commands.again(results.layout.train_sentinel(folder))):
            for row in read_watched(shards[place], ("tokens", "weight")):
                completions += 1
                for piece in pieces(row["tokens"]):
                    weight = mean_over(piece, row["weight"])
                    if weight is not None:
                        sums[same_word(piece.text)] += weight
                        counts[same_word(piece.text)] += 1
    return {word: (sums[word], counts[word]) for word in sums}, completions


def _arm(row: Row, runs: list[tuple[Tally, int]], confidence: float) -> ArmWords:
    tallies = [tally for tally, _ in runs]
    counts = {word: sum(tally[word][1] for tally in tallies if word in tally) for word in sorted(set().union(*tallies))}
    means = {word: float(np.nanmean(_over_runs(word, tallies))) for word in counts}
    even = bool(means) and max(means.values()) - min(means.values()) < EVEN
    often = [word for word in counts if counts[word] >= MIN_COUNT]
    num_ranked = 0 if even else min(RANKED, len(often) // 2)  # no word stands at both ends

    def best(sign: int) -> tuple[WordCredit, ...]:
        ranked = sorted(often, key=lambda word: (sign * means[word], word))[:num_ranked]
        estimates = {word: over_seeds(_over_runs(word, tallies), counts[word], confidence) for word in ranked}
        return tuple(WordCredit(word=word, weight=weight) for word, weight in estimates.items())

    return ArmWords(
        arm=row.key,
        num_seeds=sum(completions > 0 for _, completions in runs),
        num_completions=sum(completions for _, completions in runs),
        num_words=len(often),
        even=tidy(next(iter(means.values()))) if even else None,
        most=best(-1),
        least=best(1),
    )


def _over_runs(word: str, tallies: list[Tally]) -> np.ndarray:
    """Mean weight of a word in each run; NaN in a run that never used it."""
    return np.array([tally[word][0] / tally[word][1] if word in tally else np.nan for tally in tallies])
