"""Compare two policies beyond their mean difference: sample size needed, flips, probability of improvement."""

import numpy as np
from jaxtyping import Float
from scipy.special import bdtr

from rlassay.report.findings.records import Flips, Needed
from rlassay.report.numbers import Estimate
from rlassay.report.tables import SeedScores, estimate, tidy, tidy_p
from rlassay.stats import (
    PlannedTest,
    deviations_of,
    items_needed,
    minimum_detectable_effect,
    paired_difference,
    probability_of_improvement,
    seeds_needed,
)

POWER = 0.8
"""Chance of finding the declared effect for which seeds and prompts are counted."""
MAX_FLIPS = 5
"""Most prompts that are named of those that an arm wins, and that it loses."""
ReferenceScores = Float[np.ndarray, "reference_seeds items"]


def needed(a: SeedScores, b: SeedScores, effect: float, level: float, *, matched_seeds: bool) -> Needed | None:
    """Seeds and prompts that would find an `effect` between arms like `a` and `b`.

    None without two seeds and two prompts.

    Args:
        a: scores of the arm.
        b: scores of the reference, the same seeds and items.
        effect: the declared smallest effect.
        level: chance of a false verdict in the strictest test that Holm's correction can ask for.
        matched_seeds: as in `rlassay.stats.paired_difference`.
    """
    complete = ~np.isnan(a - b).any(axis=0)
    num_seeds, num_items = len(a), int(complete.sum())
    if num_seeds < 2 or num_items < 2:
        return None
    found = deviations_of(a, b, matched_seeds=matched_seeds)
    if not any((found.seed_sd, found.item_sd, found.pair_sd)):
        return None
    test = PlannedTest(pair_sd=found.pair_sd, confidence=1 - level, matched_seeds=matched_seeds)
    detectable = minimum_detectable_effect(num_seeds, num_items, found.seed_sd, found.item_sd, POWER, test)
    return Needed(
        effect=effect,
        power=POWER,
        detectable=tidy(detectable),
        seeds=seeds_needed(effect, num_items, found.seed_sd, found.item_sd, POWER, test),
        items=items_needed(effect, num_seeds, found.seed_sd, found.item_sd, POWER, test),
    )


def flips(a: SeedScores, b: ReferenceScores, prompt_ids: list[str]) -> Flips:
    """Prompts that only the arm, or only the reference, answers right, with McNemar's exact test.

    A policy answers a prompt right if at least half of its completions over all seeds are right. With w won and l lost
    prompts, the p-value is the probability of a split at least as uneven of w + l fair coins, on both sides. It is
    conditional on the trained policies: other seeds would flip other prompts.
    Source: McNemar (1947), Psychometrika 12, 153-157; the exact form of Agresti (2013), section 11.1.1.

    Args:
        a: scores of the arm, 0 to 1; NaN = not scored, and the prompt is left out.
        b: scores of the reference, the same prompts.
        prompt_ids: their ids in the order of the columns.
    """
    ours, theirs = a.mean(axis=0), b.mean(axis=0)
    known = ~np.isnan(ours - theirs)
    right, before = known & (ours >= 0.5), known & (theirs >= 0.5)
    won, lost = right & ~before, before & ~right
    gained, gone = int((won & known).sum()), int((lost & known).sum())
    both = int((right & before).sum())
    order = sorted(np.flatnonzero(known), key=lambda place: (-abs(ours[place] - theirs[place]), prompt_ids[place]))
    return Flips(
        won=gained,
        lost=gone,
        both=both,
        neither=int(known.sum()) - gained - gone - both,
        p_value=tidy_p(min(1.0, 2 * float(bdtr(min(gained, gone), gained + gone, 0.5)))) if gained + gone else None,
        won_prompts=tuple(prompt_ids[place] for place in order if won[place])[:MAX_FLIPS],
        lost_prompts=tuple(prompt_ids[place] for place in order if lost[place])[:MAX_FLIPS],
    )


def improvement(a: SeedScores, b: ReferenceScores, confidence: float) -> Estimate:
    """Probability that the arm beats the reference on a prompt, with its crossed interval.

    `P = mean_i mean_sr W_sri` with W = 1 where seed s of `a` is above seed r of `b`, 1/2 where they are equal. To first
    order its variance between seeds is the sum of those of `W_s = mean_ri W` and `W_r = mean_si W`, so the interval is
    that of two independent sides. Each side's own number of seeds must be the same.
    Source: `rlassay.stats.probability_of_improvement`; van der Vaart (1998), Asymptotic Statistics, section 12.2.
    """
    complete = ~(np.isnan(a).any(axis=0) | np.isnan(b).any(axis=0))
    lead = a[:, None, complete] - b[None, :, complete]
    wins = (lead > 0) + (lead == 0) / 2
    ours, theirs = wins.mean(axis=1), wins.mean(axis=0)
    if len(ours) != len(theirs) or not complete.any():
        return estimate(ours, "share", confidence).model_copy(
            update={"mean": tidy(probability_of_improvement(a, b)), "low": None, "high": None, "covers": "nothing"}
        )
    found = paired_difference(ours, wins.mean(axis=(0, 1)) - theirs, confidence, matched_seeds=False)
    low, high = max(found.low, 0.0), min(found.high, 1.0)
    return Estimate(
        mean=tidy(found.mean),
        low=tidy(low),
        high=tidy(high),
        num_seeds=found.num_seeds,
        num_items=found.num_items,
        covers="seeds and items" if found.num_seeds > 1 else "items",
    )
