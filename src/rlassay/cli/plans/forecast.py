"""Forecasts of a planned study: time, smallest detectable effect, seeds needed, best budget split."""

from dataclasses import dataclass

from rlassay.cli.plans.estimates import StageEstimate, rollout_completions, split_rows
from rlassay.cli.plans.finished import Noise, Speed
from rlassay.config import Study
from rlassay.stats import items_needed, minimum_detectable_effect, seeds_needed

POWER = 0.8
MOST_SEEDS = 40
SAMPLES = (1, 2, 4, 8, 16, 32)
ITEM_FACTOR = 4
"""The best split may ask for up to this many times the planned prompts."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A way to spend the budget of one arm, and its minimum detectable effect."""

    num_seeds: int
    """Training runs per arm."""
    num_items: int
    """Prompts of the primary set."""
    num_samples: int
    """Sampled completions per prompt."""
    effect: float
    """The minimum detectable effect."""


def guessed_noise(seed_sd: float, item_sd: float) -> Noise:
    """Noise of a guess that the study declares.

    It is the deviation of one arm's score between seeds, and of the difference between prompts. Sampling adds at most
    the variance of a fair coin, 1/4 for each arm and sample.
    """
    return Noise(
        source=f"a guess of {100 * seed_sd:g} points between seeds of an arm, {100 * item_sd:g} between prompts",
        seed_sd=2**0.5 * seed_sd,
        item_sd=item_sd,
        pair_sd=0.0,
        sample_sd=0.5**0.5,
        matched_seeds=False,
        is_share=True,
    )


def tokens_line(stages: list[StageEstimate]) -> str:
    """Completion tokens that training and evaluation sample."""
    tokens = {stage.stage: stage.tokens for stage in stages}
    training, evaluation = tokens["rl_train"] or 0, _evaluated(tokens)
    shown = "unknown" if evaluation is None else f"{evaluation:,}"
    return f"Generated tokens: at most {training:,} in training, {shown} in the evaluation"


def _evaluated(tokens: dict[str, int | None]) -> int | None:
    """Tokens of the evaluation, with those of the held-out curves; None if a number of prompts is unknown."""
    parts = [tokens["generate"], tokens.get("held_out_curve", 0)]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def time_line(stages: list[StageEstimate], speed: Speed) -> str:
    """Hours of all jobs one after another, from the speed of finished ones."""
    work = {stage.stage: stage for stage in stages}
    parts = {
        "warm start": (work["sft_train"].completions, speed.sft),
        "RL": (work["rl_train"].tokens, speed.rl),
        "evaluation": (_evaluated({name: stage.tokens for name, stage in work.items()}), speed.generate),
    }
    known = {name: units * rate / 3600 for name, (units, rate) in parts.items() if units and rate is not None}
    unknown = [name for name, (units, _) in parts.items() if units != 0 and name not in known]
    if not known:
        return "Time: unknown until a run with this model has finished on this machine"
    shown = ", ".join(f"{name} {hours:.2g}" for name, hours in known.items())
    missing = f"; unknown: {', '.join(unknown)}" if unknown else ""
    total = f"Time: about {sum(known.values()):.2g} hours of jobs one after another ({shown}{missing})"
    return f"{total}, at the speed of finished jobs of {speed.source}"


def power_lines(study: Study, noise: Noise, confidence: float, speed: Speed, budget: int | None) -> list[str]:
    """Lines about the effects that the plan can detect, and the plan that `primary.smallest_effect` needs."""
    num_seeds, num_items = len(study.seeds), split_rows(study)[study.primary.set]
    if num_items is None or num_seeds < 2 or num_items < 2:
        what = "one seed measures no variance between seeds" if num_seeds < 2 else "the number of prompts is unknown"
        return [f"Power: unknown, since {what}"]
    samples = _samples(study)
    test, family = noise.test(samples, confidence), max(1, len(study.family))
    strict = noise.test(samples, 1 - (1 - confidence) / family)
    effects = [
        minimum_detectable_effect(num_seeds, num_items, noise.seed_sd, noise.item_sd, POWER, one)
        for one in (test, strict)
    ]
    after = f", {_size(effects[1], noise)} after Holm's correction over {family}" if family > 1 else ""
    lines = [
        f"Power at {_shown(num_seeds, num_items, samples)}, from {noise.source}:",
        f"  smallest difference found with {100 * POWER:.0f} % probability: {_size(effects[0], noise)}{after}",
    ]
    if study.primary.smallest_effect is not None:
        lines.append(_needed(study.primary.smallest_effect, (num_seeds, num_items, samples), noise, confidence))
    best = best_split(study, noise, confidence, speed, budget)
    if best is not None:
        runs = len(study.arms) * num_seeds if budget is None else budget
        split = _shown(best.num_seeds, best.num_items, best.num_samples)
        lines.append(f"  best use of the cost of {runs} such runs: {split}, which finds {_size(best.effect, noise)}")
    return lines


def best_split(study: Study, noise: Noise, confidence: float, speed: Speed, budget: int | None) -> Split | None:
    """The seeds, prompts and samples with the smallest detectable effect, within the planned cost.

    A run costs its training and the sampling of its evaluation, in seconds where both speeds are known, else in
    completion tokens at most. Its evaluation may have up to `ITEM_FACTOR` times the planned prompts.

    Args:
        study: the planned study.
        noise: deviations of the difference between two arms.
        confidence: level of a single comparison.
        speed: seconds per unit of work, as far as known.
        budget: number of planned runs, over all arms, that may be spent; None for those planned.
    """
    planned_items, samples = split_rows(study)[study.primary.set], _samples(study)
    if planned_items is None:
        return None
    seeds = len(study.seeds) if budget is None else budget / len(study.arms)
    training, completion = _costs(study, speed)
    greedy = study.evaluation.greedy
    total = seeds * (training + planned_items * (study.evaluation.num_samples + greedy) * completion)
    choices = SAMPLES if study.primary.mode == "sampled" else (samples,)
    best: Split | None = None
    for num_seeds in range(2, MOST_SEEDS + 1):
        for num_samples in sorted({*choices, samples}):
            per_item = (num_samples + greedy if study.primary.mode == "sampled" else 1) * completion
            affordable = int((total / num_seeds - training) / per_item)
            num_items = min(ITEM_FACTOR * planned_items, affordable)
            if num_items < 2:
                continue
            test = noise.test(num_samples, confidence)
            effect = minimum_detectable_effect(num_seeds, num_items, noise.seed_sd, noise.item_sd, POWER, test)
            if best is None or effect < best.effect:
                best = Split(num_seeds=num_seeds, num_items=num_items, num_samples=num_samples, effect=effect)
    return best


def _costs(study: Study, speed: Speed) -> tuple[float, float]:
    """The mean cost of training a run, and that of a completion of the evaluation."""
    in_seconds = speed.rl is not None and speed.generate is not None
    rl, generate = (speed.rl or 1.0, speed.generate or 1.0) if in_seconds else (1.0, 1.0)
    recipes = [arm.recipe.rl for arm in study.arms.values()]
    tokens = sum(rollout_completions(each, study.num_processes) * each.max_completion_length for each in recipes)
    return rl * tokens / len(recipes), generate * study.evaluation.max_completion_length


def _needed(effect: float, planned: tuple[int, int, int], noise: Noise, confidence: float) -> str:
    num_seeds, num_items, samples = planned
    test = noise.test(samples, confidence)
    seeds = seeds_needed(effect, num_items, noise.seed_sd, noise.item_sd, POWER, test)
    items = items_needed(effect, num_seeds, noise.seed_sd, noise.item_sd, POWER, test)
    by_seeds = f"{seeds} seeds" if seeds else f"no number of seeds suffices with {num_items:,} prompts"
    by_items = f"{items:,} prompts" if items else f"no number of prompts suffices with {num_seeds} seeds"
    return f"  to find {_size(effect, noise)} (primary.smallest_effect) in one comparison: {by_seeds}; or {by_items}"


def _samples(study: Study) -> int:
    return study.evaluation.num_samples if study.primary.mode == "sampled" else 1


def _shown(num_seeds: int, num_items: int, samples: int) -> str:
    return f"{num_seeds} seeds x {num_items:,} prompts x {samples} sample{'s' * (samples > 1)}"


def _size(effect: float, noise: Noise) -> str:
    return f"{100 * effect:.1f} points" if noise.is_share else f"{effect:.3g}"
