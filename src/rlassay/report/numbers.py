"""The numbers of the report: each one carries how many seeds and items it rests on, and what its interval covers."""

from typing import Literal

from rlassay.records import Record, SplitFacts

# MERGED FROM report.numbers: The numbers of the report: each one carries how many seeds and items it rests on,
# and what its interval covers.

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


# MERGED FROM report.evidence: What the report shows besides tables and curves: the design, the parts of the
# reward, completions side by side.


class DesignRow(Record):
    """One key path in which arms differ."""

    key: str
    """Path in the arm's recipe, such as `rl.loss_type`."""
    values: dict[str, str]
    """Arm -> value, as JSON text."""
    declared_by: tuple[str, ...]
    """Arms that declare it as the thing varied."""
    confounds: tuple[str, ...]
    """Arms that differ from the baseline here without declaring it."""


class Design(Record):
    """The design table and the confound check."""

    sentence: str
    """Outcome of the check in one sentence."""
    rows: tuple[DesignRow, ...]
    """Every key path in which any two arms differ."""


class RewardPart(Record):
    """One reward of one arm during training, raw and weighted."""

    arm: str
    """The arm."""
    reward: str
    """The reward's name."""
    role: Literal["trained", "observer"]
    """An observer has weight 0: logged, never trained on."""
    weight: float
    """Its weight in the sum, at the end of training."""
    phases: tuple[tuple[float, float], ...]
    """From which training progress (0 to 1) on it has which weight."""
    first: Estimate
    """Raw value over the first tenth of the steps."""
    last: Estimate
    """Raw value over the last tenth of the steps."""
    weighted_last: Estimate
    """Contribution to the summed reward over the last tenth of the steps."""
    not_judged: float
    """Share of completions for which the reward was null."""
    failed: dict[str, int]
    """How judging failed -> completions; they are among those not judged."""
    same_in_group: float | None
    """Share of groups in which it said the same of all completions, mean over steps and seeds; null = not logged."""
    silent: bool
    """True for a trained reward that says the same in most groups, and so teaches next to nothing."""
    correlations: dict[str, float | None]
    """`length` or another reward -> correlation over the completions of a step, mean over steps and seeds; null = never
    defined."""


class ShownCompletion(Record):
    """One completion of an example."""

    row: str
    """Table row of its policy."""
    label: str
    """That row's name on the page."""
    seed: int | None
    """Seed of the run; null for a policy shared by all seeds."""
    text: str
    """The completion as generated; untrusted text."""
    token_count: int
    """Tokens, end-of-sequence included."""
    finished: bool
    """False = truncated."""
    score: float | None
    """Its value of the primary metric."""


class Example(Record):
    """One prompt with one completion of every row."""

    prompt_id: str
    """The prompt."""
    set: str
    """Its evaluation set."""
    question: str
    """The question as the source words it."""
    choices: tuple[str, ...]
    """The options in the order of their letters."""
    answer: str
    """The gold answer."""
    images: tuple[str, ...]
    """Image files, relative to the report folder."""
    reason: str
    """Why it is shown."""
    completions: tuple[ShownCompletion, ...]
    """In the order of the table rows."""


# MERGED FROM report.provenance: Where the report's numbers come from, what they cost, and how to get them
# again.


class Command(Record):
    """How to get one thing again."""

    target: str
    """What it makes, for readers."""
    command: str
    """One shell line, run in the project's root."""


class Missing(Record):
    """One file that a complete report would have used."""

    path: str
    """Relative to the study's results folder."""
    needed_for: str
    """What is absent from the report because of it."""
    command: str
    """How to make it."""


class PolicyFacts(Record):
    """Provenance of one trained policy."""

    policy: str
    """Folder relative to the study's results folder."""
    row: str
    """Its table row."""
    seed: int | None
    """Its seed; null for a warm start shared by all seeds."""
    fingerprint: str
    """Hash of everything that identifies the result."""
    steps: int
    """Optimiser steps done."""
    max_steps: int
    """Optimiser steps asked for."""
    sha256: str
    """Digest of the weights; of several files, the digest of their names and digests."""
    gpus: int
    """GPUs that it trained on."""
    versions: dict[str, str]
    """Library -> version."""


class SampleRow(Record):
    """One row of a split, shown as it is."""

    prompt_id: str
    """Which prompt."""
    question: str
    """The question, shortened."""
    choices: tuple[str, ...]
    """The option texts, shortened; empty for free answers."""
    answer: str
    """The gold answer, or its letter, shortened."""
    demonstration: str | None
    """The completion to imitate, shortened; null outside of the warm start."""
    images: tuple[str, ...]
    """Paths relative to the report folder."""
    clips: tuple[str, ...]
    """Names of the clips."""


class DataSplit(SplitFacts):
    """One data split."""

    split: str
    """Its name."""
    duplicates: int
    """Records refused because the split has nearly the same prompt."""
    leaks: int
    """Records refused because an evaluation split has nearly the same prompt or image."""
    samples: tuple[SampleRow, ...]
    """A few rows, evenly spaced over the split."""


class PolicyCost(Record):
    """What one training job took."""

    policy: str
    """Folder relative to the study's results folder."""
    label: str
    """Name of its row on the page."""
    seed: int | None
    """Its seed; null for a warm start shared by all seeds."""
    seconds: float
    """Wall time of all attempts, seconds."""
    generated_tokens: int
    """Tokens sampled during training."""
    peak_memory_mb: float | None
    """Highest memory use, MB (GPU memory where there is one)."""
    seconds_per_step: dict[str, float]
    """Mean seconds per optimiser step: `step`, and of it `generation`, `reward` and, where measured, `signals`."""
    signals_share: float | None = None
    """Part of the time in steps that went into measuring signals; null = none was timed."""


class PolicyResumes(Record):
    """Where one training job was resumed."""

    policy: str
    """Folder relative to the study's results folder."""
    steps: tuple[int, ...]
    """The steps it went on from; empty = never interrupted."""
