"""Records of the report's sections; each number has its seeds, items and the coverage of its interval."""

from typing import Literal

from rlassay.records import Mode, Record, RejectedRecord, SplitFacts

# Estimates.

Covers = Literal["seeds and items", "items", "seeds", "nothing"]
"""Sources of chance that an interval covers; `items`: one seed ran, so seed variance was not measured."""

Unit = Literal["share", "tokens", "nats", "value"]
"""`share`: a fraction from 0 to 1, shown as %; `value`: a reward, loss or rate in its own unit."""


class Estimate(Record):
    """A mean with its interval, and the numbers of seeds and items behind it."""

    mean: float | None
    """The mean over seeds and items; null = nothing has a score."""
    low: float | None
    """Lower end of the interval; null = cannot be computed."""
    high: float | None
    """Upper end of the interval; null = cannot be computed."""
    num_seeds: int
    """Seeds (trained policies) behind the mean."""
    num_items: int
    """Prompts behind the mean; in training statistics, completions."""
    covers: Covers
    """Sources of chance that the interval covers."""
    by_seed: tuple[float | None, ...] = ()
    """The mean of each seed, where the number is one of policies."""


class PairedDifference(Record):
    """Difference of two policies, arm minus reference, over the same prompts."""

    effect: float | None
    """Mean difference, in the metric's unit; positive = the arm is higher."""
    low: float | None
    """Lower end of the interval; null = cannot be computed."""
    high: float | None
    """Upper end of the interval; null = cannot be computed."""
    p_value: float | None
    """Two-sided p-value against no difference; null with one seed."""
    p_holm: float | None
    """`p_value` after Holm's correction over `family_size` comparisons; null outside the family and with one seed."""
    family_size: int
    """Comparisons corrected together; 0 = outside the declared family."""
    num_seeds: int
    """Seeds behind the difference."""
    num_items: int
    """Prompts behind the difference."""
    covers: Covers
    """Sources of chance that the interval covers."""


# Tables.


class Column(Record):
    """Column of a table: one metric of one evaluation set in one decoding mode."""

    key: str
    """`<set>/<metric>/<mode>`."""
    set: str
    """The evaluation set."""
    metric: str
    """Name of the metric, a row of GLOSSARY.md."""
    mode: Mode
    """Decoding mode of the completions."""
    title: str
    """Heading on the page."""
    unit: Unit
    """Unit of every cell."""
    limits: tuple[float, float] | None = None
    """Smallest and largest value of the metric, if known and not 0 and 1."""
    better: Literal["higher", "lower", "neither"]
    """The direction of improvement."""
    primary: bool
    """Whether the verdicts compare this column."""


class TableRow(Record):
    """Row of a table: the untrained model, a warm start or an arm."""

    row: str
    """Key: `untrained`, `sft`, or the reference's or arm's name. `sft/<id>` where `sft` alone is ambiguous."""
    kind: Literal["untrained", "sft", "reference", "arm"]
    """Kind of its policies."""
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
    """Heading on the page."""
    note: str
    """Explanation below the table."""
    columns: tuple[Column, ...]
    """Its metrics."""
    rows: tuple[TableRow, ...]
    """Untrained models, warm starts, then the arms in the study's order."""


# Learning curves.


class Series(Record):
    """Learning curve of one arm, as parallel lists."""

    arm: str
    """The arm."""
    num_seeds: int
    """Runs behind the curve."""
    steps: tuple[int, ...]
    """Optimiser steps, ascending; in a long run, the last step of each of at most 200 equal spans."""
    mean: tuple[float | None, ...]
    """Mean over the seeds that logged the step."""
    low: tuple[float | None, ...]
    """Lower end of the pointwise interval over seeds; null with one seed."""
    high: tuple[float | None, ...]
    """Upper end of the pointwise interval over seeds; null with one seed."""


CurveGroup = Literal["reward", "length", "policy", "document", "attention", "layers", "selection", "scaling"]


class Curve(Record):
    """One logged metric over training, for all arms."""

    metric: str
    """Name as logged in `metrics.jsonl`."""
    title: str
    """Heading on the page."""
    unit: Unit
    """Unit of the values."""
    group: CurveGroup
    """Section of the page."""
    series: tuple[Series, ...]
    """One per arm that logged it."""


# Design, rewards and completions.


class DesignRow(Record):
    """One setting in which arms differ."""

    key: str
    """Key path in the arm's recipe, such as `rl.loss_type`."""
    values: dict[str, str]
    """Arm -> value, as JSON text."""
    declared_by: tuple[str, ...]
    """Arms that declare this difference from the baseline."""
    confounds: tuple[str, ...]
    """Arms with an undeclared difference from the baseline."""


class Design(Record):
    """The design table and the confound check."""

    sentence: str
    """Result of the check in one sentence."""
    rows: tuple[DesignRow, ...]
    """Every setting in which two arms differ."""


class RewardPart(Record):
    """One reward in one arm during training, raw and weighted."""

    arm: str
    """The arm."""
    reward: str
    """The reward's name."""
    role: Literal["trained", "observer"]
    """`observer` is a logged-only reward: its weight is 0 throughout."""
    weight: float
    """Its weight at the end of training."""
    phases: tuple[tuple[float, float], ...]
    """(training progress from 0 to 1, weight from there on), ascending."""
    first: Estimate
    """Mean raw value over the first tenth of the steps."""
    last: Estimate
    """Mean raw value over the last tenth of the steps."""
    weighted_last: Estimate
    """Mean contribution to the summed reward over the last tenth of the steps."""
    not_judged: float
    """Share of completions without a value of this reward."""
    failed: dict[str, int]
    """Kind of failure -> completions; `not_judged` includes them."""
    same_in_group: float | None
    """Share of groups whose completions all have the same value, mean over steps and seeds; null = not logged."""
    silent: bool
    """True for a zero-variance reward: the same within most groups. Trained on, it teaches next to nothing."""
    correlations: dict[str, float | None]
    """`length` or another reward -> correlation over a step's completions, mean over steps and seeds; null = undefined
    at every step."""


class ShownCompletion(Record):
    """One completion of an example."""

    row: str
    """Table row of its policy."""
    label: str
    """Name of that row on the page."""
    seed: int | None
    """Seed of the run; null for a policy that all seeds share."""
    text: str
    """The completion as generated; untrusted text."""
    token_count: int
    """Tokens, including the end-of-sequence token."""
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
    """The question in the source's words."""
    choices: tuple[str, ...]
    """The options in the order of their letters."""
    answer: str
    """The gold answer."""
    images: tuple[str, ...]
    """Image files, relative to the report folder."""
    frames: tuple[int, ...] = ()
    """Frames that each of them shows side by side."""
    clips: tuple[str, ...] = ()
    """File names of video clips, with their lengths and the times of film-strip frames."""
    reason: str
    """Reason for showing it."""
    completions: tuple[ShownCompletion, ...]
    """One per table row, in the order of the rows."""


# Data, provenance and cost.


class Command(Record):
    """Shell command that makes one result."""

    target: str
    """The result, in words."""
    command: str
    """One shell line, to run in the project's root folder."""


class MissingFile(Record):
    """File that a complete report needs."""

    path: str
    """Path relative to the study's results folder."""
    needed_for: str
    """The policy that the report leaves out without it."""
    command: str
    """Shell command that makes it."""


class RunLinks(Record):
    """Addresses in the user interface of MLflow."""

    arms: str
    """The arms side by side."""
    weights: str = ""
    """Their reward weights against the primary metric, as parallel coordinates."""
    curves: str = ""
    """Curves of the training runs, grouped by arm."""
    rows: dict[str, str]
    """Table row -> the run over its seeds."""
    policies: dict[str, str]
    """Folder of a trained policy -> the run of its training."""


class PolicyFacts(Record):
    """Provenance of one trained policy."""

    policy: str
    """Folder relative to the study's results folder."""
    row: str
    """Its table row."""
    seed: int | None
    """Its seed; null for a warm start that all seeds share."""
    fingerprint: str
    """Hash of all settings that determine the result."""
    steps: int
    """Optimiser steps done."""
    max_steps: int
    """Optimiser steps configured."""
    sha256: str
    """Digest of the weights file; of several files, the digest of their names and digests."""
    gpus: int
    """GPUs used for training."""
    versions: dict[str, str]
    """Library -> version."""


class SampleRow(Record):
    """Sample row of a data split."""

    prompt_id: str
    """The prompt."""
    question: str
    """The question, shortened."""
    choices: tuple[str, ...]
    """The option texts, shortened; empty for free answers."""
    answer: str
    """The gold answer, or its letter, shortened."""
    demonstration: str | None
    """The completion to imitate, shortened; null outside the SFT split."""
    images: tuple[str, ...]
    """Paths relative to the report folder."""
    frames: tuple[int, ...] = ()
    """Frames that each of them shows side by side."""
    clips: tuple[str, ...]
    """File names of video clips, with their lengths and the times of frames shown."""


class DataSplit(SplitFacts):
    """Data split with its counts and sample rows."""

    split: str
    """Its name."""
    duplicates: int
    """Records rejected because the split has nearly the same prompt."""
    leaks: int
    """Records rejected because an evaluation split has nearly the same prompt or image."""
    samples: tuple[SampleRow, ...]
    """A few of its rows, evenly spaced."""

    @property
    def faulty(self) -> tuple[RejectedRecord, ...]:
        """The first few rejected records of each reason, without duplicates and leaks, which `pairs` has."""
        return tuple(one for one in self.rejected if not one.reason.startswith(("duplicate:", "leak:")))


class PolicyCost(Record):
    """Time, tokens and memory of one training job."""

    policy: str
    """Folder relative to the study's results folder."""
    label: str
    """Name of its row on the page."""
    seed: int | None
    """Its seed; null for a warm start that all seeds share."""
    seconds: float
    """Wall time of all attempts, seconds."""
    generated_tokens: int
    """Tokens sampled during training."""
    peak_memory_mb: float | None
    """Highest memory use, MB (GPU memory where there is one)."""
    seconds_per_step: dict[str, float]
    """Mean seconds per optimiser step: `step`, and its parts `generation`, `reward` and, if measured, `signals`."""
    signals_share: float | None = None
    """Share of the step time spent on signals; null = not timed."""


class PolicyCollapse(Record):
    """A run that its guard ended early; its scores are those of the weights at that step."""

    policy: str
    """Folder relative to the study's results folder."""
    step: int
    """The optimiser step after which it ended."""
    max_steps: int
    """Optimiser steps that were planned."""
    reason: str
    """The rule that it broke."""


class PolicyResumes(Record):
    """Interruptions of one training job."""

    policy: str
    """Folder relative to the study's results folder."""
    steps: tuple[int, ...]
    """Steps at which it was resumed; empty = never interrupted."""
