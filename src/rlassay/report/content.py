"""Content of `report.json`, the only input of figures and page.

The same results give the same bytes, except for recorded times below the keys `cost` and `resumes`, and addresses below
`mlflow`.
"""

from typing import Any, Literal

from rlassay.records import Record
from rlassay.report.findings.records import (
    ArmSummary,
    Attribution,
    Equivalence,
    Flips,
    Frontier,
    HackingSign,
    HeldOut,
    Needed,
    Profiles,
    Provenance,
    Rounds,
)
from rlassay.report.numbers import (
    Command,
    Curve,
    DataSplit,
    Design,
    Estimate,
    Example,
    MissingFile,
    PairedDifference,
    PolicyCollapse,
    PolicyCost,
    PolicyFacts,
    PolicyResumes,
    RewardPart,
    RunLinks,
    Table,
    TableName,
)

# Token credit.


class CreditWord(Record):
    """One word of a completion; each number is a mean over the word's tokens."""

    before: str
    """White space before it."""
    text: str
    """The word as generated; untrusted text. `END` of `rlassay.token_words` is the end-of-sequence token."""
    num_tokens: int
    """Tokens that share a character with it."""
    weight: float | None
    """Credit weight; 1 = no change, 0 = not trained on."""
    perception: float | None
    """Dependence of the word on the image, nats; null = not measured."""
    entropy: float | None
    """Entropy of the policy, nats; null = not measured."""
    dominance: float | None
    """Attention density of text divided by that of the image (MDI); null = not measured."""


class Heat(Record):
    """Attention on the cells of an image or a film strip.

    It is a mean over the completion's tokens and the late layers.
    """

    rows: int
    """Cells from top to bottom."""
    cols: int
    """Cells from left to right."""
    cells: tuple[float, ...]
    """Attention share per image token, row by row; a cell that pools several tokens has their mean."""
    total: float
    """Attention share of the whole image or clip."""
    frames: tuple[float | None, ...] = ()
    """For a film strip, the attention share of each frame; null for a frame that the arm does not show."""


class DocumentWord(Record):
    """One word of the document that an encoder-decoder reads."""

    before: str
    """White space before it."""
    text: str
    """The word; untrusted text."""
    attention: float
    """Share of the completion's attention on its tokens; a token of two words counts half for each."""


class ReadDocument(Record):
    """Attention on the words of a document.

    It is a mean over the completion's tokens and the late layers.
    """

    words: tuple[DocumentWord, ...]
    """Its first words."""
    omitted: int
    """Words left out after them."""
    total: float
    """Attention share of the whole document; control tokens have the rest."""


class WatchedCompletion(Record):
    """One completion of one arm, recorded token by token."""

    arm: str
    """The arm."""
    sample: int
    """0-based index in its group."""
    reward: float | None
    """Weighted sum of its rewards."""
    advantage: float | None
    """Advantage before token credit."""
    scale: float | None
    """Factor of trajectory scaling; null = not scaled."""
    words: tuple[CreditWord, ...]
    """Its words; of a long completion, equally many of the first and the last ones."""
    omitted: int
    """Words omitted between the two halves of `words`."""
    heat: Heat | None
    """Its attention on the image; null = not measured, or the prompt does not have exactly one image."""
    document: ReadDocument | None = None
    """Its attention on the document; null = not measured, or no encoder-decoder."""


class Scene(Record):
    """One prompt at one step of training, with one completion of every arm."""

    stage: Literal["first", "middle", "last"]
    """Position of the step among the steps that all arms recorded."""
    step: int
    """The optimiser step."""
    rank: int
    """Position of the prompt among those recorded at the step, from 0."""
    prompt_id: str
    """The prompt."""
    question: str
    """The question in the source's words."""
    choices: tuple[str, ...]
    """The options in the order of their letters."""
    answer: str
    """The gold answer."""
    image: str | None
    """The file of the image or film strip, relative to the report folder; null unless the prompt has exactly one."""
    num_media: int = 0
    """Images and clips of the prompt; if there are several, neither they nor the attention on them are shown."""
    times: tuple[float, ...] = ()
    """Seconds of each frame of the film strip; empty for an image."""
    group_size: int
    """Completions of the prompt per arm, of which one is shown."""
    completions: tuple[WatchedCompletion, ...]
    """One per arm, in the study's order."""


class WordCredit(Record):
    """The mean credit of one word in one arm."""

    word: str
    """In lower case, without surrounding punctuation; untrusted text."""
    weight: Estimate
    """Mean weight of its occurrences; interval over seeds; `num_items` counts the occurrences of all seeds."""


class ArmWords(Record):
    """The words with most and least credit in one arm."""

    arm: str
    """The arm."""
    num_seeds: int
    """Runs with recorded completions."""
    num_completions: int
    """Recorded completions that were counted."""
    num_words: int
    """Distinct words with at least `min_count` occurrences."""
    even: float | None
    """The weight of all words if it is the same; null = weights differ."""
    most: tuple[WordCredit, ...]
    """Words with the highest mean weight, highest first."""
    least: tuple[WordCredit, ...]
    """Words with the lowest mean weight, lowest first."""


class TokenCredit(Record):
    """Content of the credit viewer: completions word by word, and ranked words."""

    seed: int
    """Seed of the runs in the scenes; runs with the same seed see the same prompts at the same step."""
    note: str
    """Rules of the choice, and omissions."""
    scenes: tuple[Scene, ...]
    """By step, then in the order of recording."""
    min_count: int
    """Least number of occurrences of a ranked word."""
    max_steps: int
    """Most steps of a run whose words are counted; a run with more counts that many evenly spaced ones."""
    words: tuple[ArmWords, ...]
    """One per arm with recorded completions, in the study's order."""


# Study, verdicts and the whole report.

ComparisonOutcome = Literal["better", "worse", "equivalent", "not resolved", "seed variance not measured", "missing"]


class StudyFacts(Record):
    """Question and protocol of the study."""

    id: str
    """Name of the results folder: `<study>` or `<study>-<scale>`."""
    title: str
    """Headline."""
    question: str
    """Question of the study."""
    seeds: tuple[int, ...]
    """Seeds of every arm."""
    baseline: str
    """The reference arm of the verdicts."""
    primary: str
    """Key of the column that the verdicts compare."""
    smallest_effect: float | None = None
    """Declared smallest difference that matters, in the metric's unit; null = none."""
    confidence: float
    """Level of all intervals, such as 0.95."""
    num_samples: int
    """Sampled completions per prompt in the evaluation."""
    num_checkpoints: int = 1
    """Number of weights of a run whose scores on the primary set are averaged. The trained ones are among them."""


class ArmFacts(Record):
    """One arm as the study file declares it."""

    name: str
    """Key in the study file."""
    label: str
    """Its name on the page."""
    color: str | None
    """Its colour, `#rrggbb`; null = the page chooses."""
    varies: tuple[str, ...]
    """Settings declared to differ from the baseline."""
    weights: dict[str, float]
    """Reward name -> weight; 0 = logged only."""
    seeds: tuple[int, ...]
    """Seeds with complete results."""
    start: str
    """Table row of the policy before RL: an `sft` or an `untrained` row."""


class OtherMode(Record):
    """The same comparison in another mode of the primary metric or pairing of seeds.

    Modes are sampled or greedy decoding, whichever is not the primary one, and pass@k.
    """

    column: str
    """`<set>/<metric>/<mode>`."""
    title: str
    """Heading on the page."""
    difference: PairedDifference
    """The numbers; their p-value is not corrected."""
    by_seed: tuple[float | None, ...]
    """Difference of each seed that both have; empty for the other pairing, where they are those of the comparison."""
    opposed: bool
    """Whether it contradicts the verdict. It has the other direction in its whole interval, or in all of several
    seeds."""


class Comparison(Record):
    """Comparison of an arm with a reference on the primary column."""

    arm: str
    """The arm."""
    reference: str
    """Table row of the reference."""
    outcome: ComparisonOutcome
    """`better`, `worse` and `equivalent` (no effect as large as declared) are verdicts; the others say why not."""
    answer: str = ""
    """The verdict in plain words, to follow the arm's label in a sentence."""
    takes: str = ""
    """The seeds or prompts that would find an effect of declared size, in a sentence; empty if not needed."""
    warnings: tuple[str, ...] = ()
    """Other modes of the metric that contradict the verdict, each in a sentence."""
    equivalence: Equivalence | None = None
    """Test against the declared smallest effect; null = none is declared, or there are no numbers."""
    needed: Needed | None = None
    """The seeds and prompts that would find an effect of the declared size; null as for `equivalence`."""
    flips: Flips | None = None
    """Prompts won and lost; null unless the metric is 0 or 1."""
    improvement: Estimate | None = None
    """Probability that a run of the arm beats one of the reference on a prompt; ties count half."""
    sentence: str
    """Verdict in one sentence, with effect, interval, Holm p, seeds and prompts."""
    difference: PairedDifference | None
    """The numbers; null when results are missing."""
    by_seed: tuple[float | None, ...] = ()
    """Difference of each seed that both have."""
    pairing: str = ""
    """How the seeds of the two are paired, in words."""
    other_modes: tuple[OtherMode, ...] = ()
    """The other modes of the primary metric, and last the other pairing of the seeds."""


class Content(Record):
    """The whole report."""

    study: StudyFacts
    """Question and protocol."""
    headline: str = ""
    """The answer to the question in one sentence; empty with one arm."""
    complete: bool
    """False = a partial report, without the files in `missing`."""
    missing: tuple[MissingFile, ...]
    """Absent files."""
    arms: tuple[ArmFacts, ...]
    """The arms in the study's order."""
    verdicts: tuple[Comparison, ...]
    """Each other arm against the baseline."""
    rounds: Rounds | None = None
    """Looks at sequential seeds; null for a study with fixed seeds."""
    attribution: Attribution | None = None
    """Effects of the ingredients of a design; null for a study whose arms are written by hand."""
    gains: tuple[Comparison, ...]
    """Each arm against its policy before RL."""
    modes_apart: tuple[str, ...] = ()
    """Sentences on other modes of the primary metric that contradict `gains`."""
    references: tuple[Comparison, ...] = ()
    """Each arm against each reference that the study compares."""
    gains_note: str
    """Coverage of the intervals of `gains`, which depends on how many warm starts were trained."""
    design: Design
    """Differences between the arms, and the confound check."""
    engines: str = ""
    """Who sampled with vLLM, and its gap to the trainer; empty where transformers sampled all completions."""
    tables: dict[TableName, Table]
    """Tables by name; no `pass_at_k` unless the primary metric is 0 or 1, no `parsing` unless prompts have options."""
    curves: tuple[Curve, ...]
    """Learning curves."""
    held_out: HeldOut | None = None
    """Scores on held-out prompts in the course of training; null for a study that asks for none."""
    hacking: tuple[HackingSign, ...] = ()
    """Signs of reward hacking in every arm with a finished run."""
    summaries: tuple[ArmSummary, ...] = ()
    """Each arm with a finished run, beyond its mean."""
    profiles: Profiles | None = None
    """The primary metric over prompts; null with one arm, or where a profile adds nothing to the mean."""
    frontier: Frontier | None = None
    """KL against score; null unless two arms measured the KL."""
    rewards: tuple[RewardPart, ...]
    """Each reward of each arm, including logged-only rewards."""
    examples: tuple[Example, ...]
    """Completions side by side."""
    credit: TokenCredit | None = None
    """Token credit word by word; null = no run recorded it."""
    commands: tuple[Command, ...]
    """Commands that make the report and each run again."""
    policies: tuple[PolicyFacts, ...]
    """Provenance of every trained policy."""
    data: tuple[DataSplit, ...]
    """The data splits."""
    config: dict[str, Any]
    """The resolved study."""
    mlflow: RunLinks | None = None
    """The study's runs in MLflow, whose ids differ between reruns; null if no tracking store has them."""
    collapses: tuple[PolicyCollapse, ...] = ()
    """Runs that were ended early because their policy had collapsed."""
    provenance: Provenance | None = None
    """Dates, machines, commit and time of the evaluation, which differ between reruns."""
    cost: tuple[PolicyCost, ...]
    """Recorded times and memory, which differ between reruns."""
    resumes: tuple[PolicyResumes, ...]
    """Interruptions, which differ between reruns."""
