"""The numbers of the report: each one carries how many seeds and items it rests on, and what its interval covers."""

from typing import Literal

from rlassay.records import Record

Covers = Literal["seeds and items", "items", "seeds", "nothing"]
"""The sources of chance that an interval covers; `items`: one seed, so seed variance was not measured."""

Unit = Literal["share", "tokens", "nats", "value"]
"""`share` is a fraction between 0 and 1 (shown as %); `value` is a reward, loss or rate in its own unit."""


class Estimate(Record):
    """A mean with its interval."""

    mean: float | None
    """The mean over seeds and items; null = nothing could be judged."""
    low: float | None
    """Lower end of the interval; null = not measurable."""
    high: float | None
    """Upper end of the interval; null = not measurable."""
    num_seeds: int
    """Seeds (trained policies) behind the mean."""
    num_items: int
    """Prompts behind the mean; in training statistics, completions."""
    covers: Covers
    """What the interval covers."""


class Difference(Record):
    """A paired difference, arm minus reference, over the same prompts."""

    effect: float | None
    """Mean difference, in the metric's unit; positive = the arm is higher."""
    low: float | None
    """Lower end of the interval; null = not measurable."""
    high: float | None
    """Upper end of the interval; null = not measurable."""
    p_value: float | None
    """Two-sided p-value of no difference; null with one seed."""
    p_holm: float | None
    """The same after Holm's correction over `family_size` comparisons; null outside the family and with one seed."""
    family_size: int
    """Comparisons corrected together; 0 = this one is outside the declared family."""
    num_seeds: int
    """Seeds behind the difference."""
    num_items: int
    """Prompts behind the difference."""
    covers: Covers
    """What the interval covers."""


class Column(Record):
    """One metric of one evaluation set, decoded in one way."""

    key: str
    """`<set>/<metric>/<mode>`."""
    set: str
    """The evaluation set."""
    metric: str
    """Name of the metric, a row of GLOSSARY.md."""
    mode: Literal["sampled", "greedy"]
    """How the completions were decoded."""
    title: str
    """Heading for readers."""
    unit: Unit
    """Unit of every cell."""
    better: Literal["higher", "lower", "neither"]
    """Which direction is an improvement."""
    primary: bool
    """Whether the verdicts are about this column."""


class TableRow(Record):
    """One policy family: the untrained model, a warm start or an arm."""

    row: str
    """Key: `untrained` or `sft` (`sft/<id>` where that alone would be ambiguous), or the arm's name."""
    kind: Literal["untrained", "sft", "arm"]
    """What it is."""
    label: str
    """Its name on the page."""
    cells: tuple[Estimate, ...]
    """One per column, in the order of the columns."""


TableName = Literal["main", "pass_at_k", "length", "parsing"]


class Table(Record):
    """One table of the page, and one file `tables/<name>.csv`."""

    name: TableName
    """File name without the ending."""
    title: str
    """Heading for readers."""
    note: str
    """What the reader must know to read it."""
    columns: tuple[Column, ...]
    """What is measured."""
    rows: tuple[TableRow, ...]
    """Who is measured: untrained models, warm starts, then the arms in the study's order."""


class Series(Record):
    """One arm's learning curve; the lists run in parallel."""

    arm: str
    """The arm."""
    num_seeds: int
    """Runs behind it."""
    steps: tuple[int, ...]
    """Optimiser steps, ascending; of a long run, the last step of each of at most 200 equal stretches."""
    mean: tuple[float | None, ...]
    """Mean over the seeds that logged the step."""
    low: tuple[float | None, ...]
    """Lower end of the pointwise interval over seeds; null with one seed."""
    high: tuple[float | None, ...]
    """Upper end of the pointwise interval over seeds; null with one seed."""


CurveGroup = Literal["reward", "length", "policy", "attention", "layers", "selection", "scaling"]


class Curve(Record):
    """One logged metric over training."""

    metric: str
    """Name as logged in `metrics.jsonl`."""
    title: str
    """Heading for readers."""
    unit: Unit
    """Unit of the values."""
    group: CurveGroup
    """Part of the page that it belongs to."""
    series: tuple[Series, ...]
    """One per arm that logged it."""
