"""Everything that `report.json` holds; figures and page are drawn from this record alone.

Byte-identical for the same results, except below the keys `cost` and `resumes`, where recorded times live.
"""

from typing import Any, Literal

from rlassay.records import Record
from rlassay.report.credit_records import TokenCredit
from rlassay.report.evidence import Design, Example, RewardPart
from rlassay.report.numbers import Curve, Difference, Table, TableName
from rlassay.report.provenance import Command, DataSplit, Missing, PolicyCost, PolicyFacts, PolicyResumes

Outcome = Literal["better", "worse", "not resolved", "seed variance not measured", "missing"]


class StudyFacts(Record):
    """What was asked, and the protocol."""

    id: str
    """Name of the results folder: `<study>` or `<study>-<scale>`."""
    title: str
    """Headline."""
    question: str
    """What the study asks."""
    seeds: tuple[int, ...]
    """Seeds of every arm."""
    baseline: str
    """The arm that the others are compared with."""
    primary: str
    """Key of the column that the verdicts are about."""
    confidence: float
    """Level of all intervals, such as 0.95."""
    num_samples: int
    """Sampled completions per prompt in the evaluation."""


class ArmFacts(Record):
    """One arm, as declared."""

    name: str
    """Key in the study file."""
    label: str
    """Its name on the page."""
    color: str | None
    """Its colour, `#rrggbb`; null = the page chooses."""
    varies: tuple[str, ...]
    """Key paths in which it is meant to differ from the baseline."""
    weights: dict[str, float]
    """Reward name -> weight; 0 = observer."""
    seeds: tuple[int, ...]
    """Seeds whose results are complete."""
    start: str
    """Row that its RL started from: an `sft` row or an `untrained` row."""


class Comparison(Record):
    """One arm against one reference, on the primary column."""

    arm: str
    """The arm."""
    reference: str
    """Row it is compared with."""
    outcome: Outcome
    """`better` and `worse` are verdicts; the others say why there is none."""
    sentence: str
    """The verdict in one plain sentence with effect, interval, Holm p, seeds x items."""
    difference: Difference | None
    """The numbers; null when results are missing."""


class Content(Record):
    """The whole report."""

    study: StudyFacts
    """What was asked, and the protocol."""
    complete: bool
    """False = a partial report; `missing` lists what is absent."""
    missing: tuple[Missing, ...]
    """Files that are absent."""
    arms: tuple[ArmFacts, ...]
    """The arms in the study's order."""
    verdicts: tuple[Comparison, ...]
    """Each arm but the baseline, against the baseline."""
    gains: tuple[Comparison, ...]
    """Each arm against the policy that its RL started from."""
    gains_note: str
    """What the intervals of `gains` cover: a warm start shared by all seeds, or one per seed."""
    design: Design
    """What differs between the arms."""
    tables: dict[TableName, Table]
    """The tables by name; `pass_at_k` is absent when the primary metric is not 0 or 1."""
    curves: tuple[Curve, ...]
    """Learning curves."""
    rewards: tuple[RewardPart, ...]
    """Reward decomposition, observers included."""
    examples: tuple[Example, ...]
    """Completions side by side."""
    credit: TokenCredit | None = None
    """Token credit word by word; null = no run recorded any."""
    commands: tuple[Command, ...]
    """How to rerun each arm."""
    policies: tuple[PolicyFacts, ...]
    """Provenance of every trained policy."""
    data: tuple[DataSplit, ...]
    """The data splits."""
    config: dict[str, Any]
    """The resolved study."""
    cost: tuple[PolicyCost, ...]
    """Recorded times and memory; differs between reruns."""
    resumes: tuple[PolicyResumes, ...]
    """Interruptions; differs between reruns."""
