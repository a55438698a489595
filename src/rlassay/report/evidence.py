"""What the report shows besides tables and curves: the design, the parts of the reward, completions side by side."""

from typing import Literal

from rlassay.records import Record
from rlassay.report.numbers import Estimate


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
