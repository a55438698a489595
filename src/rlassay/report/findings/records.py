"""Records of the findings in `report.json`."""

from typing import Literal

from rlassay.records import Record
from rlassay.report.numbers import Column, Estimate, PairedDifference, Unit


class Equivalence(Record):
    """Two one-sided tests that a difference is smaller than the declared `primary.smallest_effect`."""

    margin: float
    """The declared effect, in the metric's unit."""
    p_value: float | None
    """p-value of a difference of at least the margin; null with one seed."""
    p_holm: float | None
    """`p_value` after Holm's correction over the declared family; null outside it and with one seed."""


class Needed(Record):
    """Seeds and prompts needed to find an effect of the declared size.

    All else is as in this study.
    """

    effect: float
    """The declared `primary.smallest_effect`."""
    power: float
    """Chance of finding such an effect."""
    detectable: float | None
    """Smallest effect that this study finds with that chance; null = none."""
    seeds: int | None
    """Seeds per arm with this study's prompts; null = no number of seeds is enough."""
    items: int | None
    """Prompts with this study's seeds; null = no number of prompts is enough."""


class Flips(Record):
    """Prompts that change between right and wrong; right means at least half of the completions of all seeds."""

    won: int
    """Prompts right in the arm and wrong in the reference."""
    lost: int
    """Prompts wrong in the arm and right in the reference."""
    both: int
    """Prompts right in both."""
    neither: int
    """Prompts wrong in both."""
    p_value: float | None
    """McNemar's exact two-sided p-value, for these trained policies; null without a flip."""
    won_prompts: tuple[str, ...]
    """Ids of a few won prompts, the largest change first."""
    lost_prompts: tuple[str, ...]
    """Ids of a few lost prompts, the largest change first."""


SignKind = Literal[
    "reward_without_gain",
    "parser_drift",
    "repetition",
    "repeated_tags",
    "answer_first",
    "at_cap",
    "entropy_collapse",
    "zero_variance",
    "judge_disagrees",
]


class SuspectCompletion(Record):
    """A completion that illustrates an alarm.

    It is of the last tenth of the steps, or of a held-out prompt.
    """

    seed: int
    """Seed of the run."""
    step: int | None
    """Optimiser step; null = answered after training, on a held-out prompt."""
    prompt_id: str
    """The prompt."""
    text: str
    """The completion as generated; untrusted text."""
    reward: float | None
    """Weighted sum of its rewards; null on a held-out prompt."""


class HackingSign(Record):
    """One sign of reward hacking in one arm, with its alarm if any.

    It compares a value before and after RL.
    """

    arm: str
    """The arm."""
    kind: SignKind
    """The sign; `report.hacking` in `config.yaml` has a threshold for each."""
    title: str
    """The measured quantity."""
    unit: Unit
    """Unit of both values."""
    before: Estimate
    """Over the first tenth of the steps, or in the policy before RL."""
    after: Estimate
    """Over the last tenth of the steps, or in the trained policy."""
    threshold: float
    """The threshold."""
    alarm: str
    """The suspicion, without a full stop; empty = no alarm."""
    numbers: str = ""
    """The arm's numbers that show it, without a full stop; empty without an alarm."""
    completions: tuple[SuspectCompletion, ...] = ()
    """Completions that show it; empty without an alarm."""


class ArmSummary(Record):
    """One arm beyond its mean in the primary metric."""

    arm: str
    """The arm."""
    iqm: Estimate
    """Interquartile mean over prompts; interval over seeds."""
    seed_share: float | None
    """Share of the variance that comes from seeds; the rest comes from prompts. Null with one seed."""
    curve_area: Estimate | None
    """Mean of the primary metric over all training steps; null unless it is logged in training."""
    tokens: int
    """Tokens that a run sampled in training, mean over seeds."""
    tokens_per_point: Estimate | None
    """`tokens` per point gained over the policy before RL; null without a gain, or for a metric that is no share."""


AttributionKind = Literal["shapley", "main_effect", "leave_one_out", "add_one_in", "interaction"]


class IngredientEffect(Record):
    """Effect of one ingredient on the primary metric, or interaction of two."""

    ingredients: tuple[str, ...]
    """The ingredient, or the two of an interaction."""
    label: str
    """Their labels."""
    difference: PairedDifference
    """The numbers, of a weighted sum of the arms' scores; the p-value is not corrected."""
    by_seed: tuple[float | None, ...]
    """The value in each seed that all arms of the sum have."""


class AttributionMethod(Record):
    """One way to attribute the primary metric to the ingredients of a design."""

    kind: AttributionKind
    """The method."""
    title: str
    """Its name on the page."""
    effects: tuple[IngredientEffect, ...]
    """Its numbers, in the order of the ingredients; without those whose arms are not all finished."""
    refused: str
    """The reason why numbers are left out, with the missing arms, in a sentence; empty = none are."""


class Attribution(Record):
    """The primary metric attributed to the ingredients of the study's design."""

    methods: tuple[AttributionMethod, ...]
    """The methods; interactions last, and only with two or more ingredients."""
    note: str
    """Interactions that a fractional design cannot tell from main effects, in a sentence; empty = none."""


SequentialOutcome = Literal["better", "worse", "equivalent", "continue", "inconclusive"]


class ArmAtLook(Record):
    """One arm at one look at sequential seeds."""

    arm: str
    """The arm."""
    outcome: SequentialOutcome
    """`continue` = it gets more seeds; `inconclusive` = it gets none, and there is no verdict."""
    dropped: bool
    """Whether it gets no more seeds because a gain of the declared size is excluded."""
    seeds: int
    """Its seeds so far."""
    difference: PairedDifference | None
    """Its difference from the baseline; the interval and the p-value hold over all looks."""


class Look(Record):
    """Decisions of one look at sequential seeds; the content of `looks/look<k>.json`."""

    look: int
    """The look, counted from 1."""
    seeds: int
    """Seeds of the arms that were undecided before it."""
    arms: tuple[ArmAtLook, ...]
    """Each arm but the baseline."""
    undecided: tuple[str, ...]
    """The arms that get more seeds."""


class Rounds(Record):
    """Looks of a study with sequential seeds: declared ones, those taken, and the runs saved."""

    alpha: float
    """Chance of a false verdict over all looks and arms."""
    margin: float | None
    """Declared `primary.smallest_effect`."""
    looks: tuple[int, ...]
    """Seeds at each declared look."""
    drops: bool
    """Whether arms are dropped once a gain of the declared size is excluded."""
    taken: tuple[Look, ...]
    """The looks so far."""
    runs: int
    """Runs of all arms so far."""
    planned_runs: int
    """Runs of the fixed design: the most seeds, for every arm."""
    sentence: str
    """The runs saved, as a sentence."""


class HeldOutPoint(Record):
    """One point of a held-out curve."""

    step: int
    """Optimiser steps; 0 is the policy before RL."""
    tokens: float | None
    """Tokens that a run had generated by then, mean over the runs."""
    hours: float | None
    """Hours that a run had trained by then, mean over the runs; null = steps were not timed."""
    score: Estimate
    """Its score, with its interval over seeds and prompts."""


class HeldOutSeries(Record):
    """Held-out curve of one arm."""

    arm: str
    """The arm."""
    points: tuple[HeldOutPoint, ...]
    """By step, from 0 to the trained policy; steps that only some seeds kept are left out."""


class HeldOutCurve(Record):
    """One metric on held-out prompts over training, for all arms."""

    column: Column
    """Metric, set and decoding."""
    series: tuple[HeldOutSeries, ...]
    """One per arm with a finished run."""


class ArmAtTokens(Record):
    """Score of one arm within a given number of generated tokens."""

    arm: str
    """The arm."""
    steps: float
    """The last evaluated step within the budget, mean over the runs."""
    tokens: int
    """Tokens that a run had generated by then, mean over the runs; at most the budget."""
    score: Estimate
    """Its score at these steps, as measured."""
    difference: PairedDifference | None
    """Difference from the baseline within as many tokens; its p-value is not corrected. Null for the baseline."""


class EqualTokens(Record):
    """All arms within the same number of generated tokens."""

    tokens: int
    """The budget: tokens of the run that generated the fewest in all of its training."""
    arms: tuple[ArmAtTokens, ...]
    """One per arm with a finished run."""


class HeldOut(Record):
    """Scores on held-out prompts in the course of training."""

    set: str
    """The evaluation set."""
    every: int
    """Steps between two points."""
    curves: tuple[HeldOutCurve, ...]
    """The primary metric first, then its other modes."""
    equal: EqualTokens | None
    """The primary metric at equal tokens; null with one arm."""
    missing: tuple[str, ...]
    """Runs that kept no weights at some steps, with the steps."""


class ProfileSeries(Record):
    """Performance profile of one arm."""

    arm: str
    """The arm."""
    mean: tuple[float | None, ...]
    """At each threshold, the share of prompts scoring at least as much, mean over seeds."""
    low: tuple[float | None, ...]
    """Lower ends of the intervals over seeds; null with one seed."""
    high: tuple[float | None, ...]
    """Upper ends."""
    num_seeds: int
    """Seeds."""


class Profiles(Record):
    """Distribution of the primary metric: the share of prompts that reach each threshold, per arm."""

    column: Column
    """The primary metric."""
    thresholds: tuple[float, ...]
    """Scores of a prompt, ascending, in the metric's unit."""
    num_items: int
    """Prompts that every run has scored."""
    series: tuple[ProfileSeries, ...]
    """One per arm with a finished run."""


class FrontierRun(Record):
    """KL and score of one run."""

    arm: str
    """The arm."""
    seed: int
    """The seed."""
    kl: float
    """Mean KL from the reference over the last tenth of the steps, nats per token."""
    score: float
    """Mean of the primary metric over prompts."""


class Frontier(Record):
    """KL from the reference against the primary metric, for the runs that measured it."""

    column: Column
    """The primary metric."""
    runs: tuple[FrontierRun, ...]
    """Runs of at least two arms."""
    left_out: tuple[str, ...]
    """Arms without a KL, or with a penalty that does not estimate it."""


class Provenance(Record):
    """Dates, machines and commit of a study, which differ between reruns."""

    began: float | None
    """Start of the first training job, unix seconds."""
    ended: float | None
    """End of the last training job, unix seconds."""
    hosts: tuple[str, ...]
    """Names of the machines that trained."""
    host: str
    """Name of the machine that wrote the report."""
    machine: str
    """Processor, CPUs and system of that machine."""
    commit: str
    """The project's commit when the report was written; empty outside a git repository."""
    evaluation_jobs: int
    """Jobs of the evaluation whose time is known."""
    evaluation_seconds: float
    """Their wall time, seconds."""
