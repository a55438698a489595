"""Everything that `report.json` holds; figures and page are drawn from this record alone.

Byte-identical for the same results, except below the keys `cost` and `resumes`, where recorded times live.
"""

from typing import Any, Literal

from rlassay.records import Record
from rlassay.report.numbers import (
    Command,
    Curve,
    DataSplit,
    Design,
    Difference,
    Estimate,
    Example,
    Missing,
    PolicyCost,
    PolicyFacts,
    PolicyResumes,
    RewardPart,
    Table,
    TableName,
)

# MERGED FROM report.credit_records: What the credit viewer shows: completions seen during training, word by
# word, and the words that credit favours.


class CreditWord(Record):
    """One word of a completion; each number is the mean over the tokens that share a character with the word."""

    before: str
    """White space between the word before and this one."""
    text: str
    """The word as generated; untrusted text. `END` of `rlassay.token_words` stands for the end-of-sequence token."""
    num_tokens: int
    """Tokens that share a character with it."""
    weight: float | None
    """Credit weight; 1 = as without token credit, 0 = not trained on."""
    perception: float | None
    """How much the word depends on the image, nats; null = not measured."""
    entropy: float | None
    """Entropy of the policy at its tokens, nats; null = not measured."""
    dominance: float | None
    """Attention density of text over that of the image (MDI); null = not measured."""


class Heat(Record):
    """Attention on the cells of an image, mean over the completion's tokens and the late layers."""

    rows: int
    """Cells from top to bottom."""
    cols: int
    """Cells from left to right."""
    cells: tuple[float, ...]
    """Share of the attention per image token, row by row; where a cell pools several tokens, their mean."""
    total: float
    """Share of the attention that the whole image gets."""


class WatchedCompletion(Record):
    """One completion of one arm."""

    arm: str
    """The arm."""
    sample: int
    """0-based index in its group."""
    reward: float | None
    """Weighted sum of its rewards."""
    advantage: float | None
    """Advantage before credit spreads it over the tokens."""
    scale: float | None
    """Factor of trajectory scaling; null = not scaled."""
    words: tuple[CreditWord, ...]
    """Its words; of a long completion, the first and the last ones, as many of each."""
    omitted: int
    """Words left out between the two halves of `words`."""
    heat: Heat | None
    """Where it looked; null = not measured, or a prompt without exactly one image."""


class Scene(Record):
    """One prompt at one step of training, with one completion of every arm."""

    stage: Literal["first", "middle", "last"]
    """Where in training the step lies, among the steps that all arms have."""
    step: int
    """The optimiser step."""
    rank: int
    """0 = the first prompt that was watched at that step."""
    prompt_id: str
    """The prompt."""
    question: str
    """The question as the source words it."""
    choices: tuple[str, ...]
    """The options in the order of their letters."""
    answer: str
    """The gold answer."""
    image: str | None
    """The image file, relative to the report folder; null unless the prompt has exactly one."""
    group_size: int
    """Completions of the prompt from which each arm's was chosen."""
    completions: tuple[WatchedCompletion, ...]
    """One per arm, in the study's order."""


class WordCredit(Record):
    """The mean credit of one word in one arm."""

    word: str
    """In lower case, without surrounding punctuation; untrusted text."""
    weight: Estimate
    """Mean weight over its occurrences; the interval is over seeds, `num_items` counts the occurrences of all seeds."""


class ArmWords(Record):
    """The words with most and least credit in one arm."""

    arm: str
    """The arm."""
    num_seeds: int
    """Runs with watched completions."""
    num_completions: int
    """Watched completions that were counted."""
    num_words: int
    """Different words that occur often enough."""
    even: float | None
    """The weight that all words have alike; null = they differ."""
    most: tuple[WordCredit, ...]
    """Words with the highest mean weight, highest first."""
    least: tuple[WordCredit, ...]
    """Words with the lowest mean weight, lowest first."""


class TokenCredit(Record):
    """Everything that is shown of single tokens."""

    seed: int
    """Seed of the runs that the scenes show; with the same seed, arms see the same prompts at the same step."""
    note: str
    """How scenes and completions were chosen, and what was left out."""
    scenes: tuple[Scene, ...]
    """By step, then in the order in which the prompts were watched."""
    min_count: int
    """Occurrences from which on a word is ranked."""
    max_steps: int
    """Steps of each run from which words are ranked; of a longer run, as many evenly spaced ones."""
    words: tuple[ArmWords, ...]
    """One per arm with watched completions, in the study's order."""


# MERGED FROM report.content: Everything that `report.json` holds; figures and page are drawn from this record
# alone. Byte-identical for the same results, except below the keys `cost` and `resumes`, where recorded times
# live.

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
    """The tables by name; absent are `pass_at_k` when the primary metric is not 0 or 1, `parsing` without options."""
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
