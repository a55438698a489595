"""The study: what is compared, on what, and how often."""

from typing import Annotated, Any, Literal

from pydantic import Field

from rlassay.config.data import DataConfig
from rlassay.config.section import Section
from rlassay.config.training import Recipe, RewardConfig

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

SCORE_METRICS = ("choice_accuracy_lenient", "parse_failure", "parse_failure_lenient", "token_count", "truncated")
"""Metrics of the score stage besides the rewards of the study's arms."""


class Evaluation(Section):
    """How finished policies are judged, in a stage of its own."""

    sets: tuple[str, ...] = Field(default=("test",), min_length=1)
    """Splits to answer."""
    num_samples: int = Field(default=8, ge=1)
    """Sampled completions per prompt (avg@k)."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of the sampled distribution."""
    greedy: bool = True
    """Decode each prompt greedily once as well."""
    max_completion_length: int = Field(ge=1)
    """Longest completion, tokens."""
    batch_size: int = Field(default=64, ge=1)
    """Completions decoded at once."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sampling, joined with the run's own seed."""


class Primary(Section):
    """The one number that verdicts are about; declared before anything runs."""

    set: str = "test"
    """The evaluation set."""
    metric: str = "choice_accuracy"
    """A metric of the score stage."""
    mode: Literal["sampled", "greedy"] = "sampled"
    """How the completions were decoded."""


class Arm(Section):
    """One cell of the study, complete: every difference from other arms has been written out."""

    label: str
    """Its name on the page."""
    color: str | None = Field(default=None, pattern=r"^#[0-9a-fA-F]{6}$")
    """Its colour in the figures, `#rrggbb`."""
    varies: tuple[str, ...] = ()
    """Key paths in which it is meant to differ from the baseline; any other difference is a confound."""
    recipe: Recipe
    """What its weights depend on, apart from data and seed."""


class Study(Section):
    """One resolved study; what `load_study` returns."""

    name: Name
    """Name of the study; also of its MLflow experiment."""
    scale: str | None = None
    """The scale overlay that was applied."""
    title: str
    """Headline of the report."""
    question: str
    """What the study asks, in a sentence or two."""
    seeds: tuple[Seed, ...] = Field(min_length=1)
    """One run per arm and seed."""
    gpus: int = Field(default=0, ge=0)
    """GPUs that each training and generation job needs; 0 runs on CPU."""
    data: DataConfig
    """Where the prompts come from."""
    evaluation: Evaluation
    """How finished policies are judged."""
    primary: Primary
    """The one number that verdicts are about."""
    baseline: Name
    """The arm that the others are compared with."""
    family: tuple[Name, ...]
    """The arms whose p-values are corrected together (Holm)."""
    arms: dict[Name, Arm] = Field(min_length=1)
    """The cells, by name."""

    @property
    def id(self) -> str:
        """Name of its results folder: `<study>` or `<study>-<scale>`."""
        return self.name if self.scale is None else f"{self.name}-{self.scale}"

    @property
    def rewards(self) -> dict[str, RewardConfig]:
        """Every reward of any arm, with the options that all policies are measured by.

        They are the baseline's; of a reward that it has not, the first arm's.
        """
        sections: dict[str, RewardConfig] = {}
        for name, arm in self.arms.items():
            for reward, section in arm.recipe.rewards.items():
                if reward not in sections or name == self.baseline:
                    sections[reward] = section
        return sections


class ArmFile(Section):
    """An arm as a study file writes it: its differences only."""

    from_: Name | None = Field(default=None, alias="from")
    """The arm whose sections it starts from; null starts from the study's own sections."""
    label: str | None = None
    """Its name on the page; the key by default."""
    color: str | None = Field(default=None, pattern=r"^#[0-9a-fA-F]{6}$")
    """Its colour in the figures, `#rrggbb`."""
    varies: tuple[str, ...] = ()
    """Key paths in which it is meant to differ from the baseline, such as `rewards` or `rl.loss_type`."""
    model: dict[str, Any] | None = None
    """Differences in the model section."""
    sft: dict[str, Any] | None = None
    """Differences in the warm start; null in the file leaves it out."""
    rl: dict[str, Any] | None = None
    """Differences in the RL section."""
    rewards: dict[str, Any] | None = None
    """Differences in the rewards; a reward set to null is removed."""
    credit: list[dict[str, Any]] | None = None
    """The token credit, whole."""
    credit_denominator: Literal["all", "selected"] | None = None
    """Over which tokens the loss is a mean."""
    entropy_penalty_coef: float | None = Field(default=None, ge=0)
    """Weight of the published entropy penalty."""
    signals: dict[str, Any] | None = None
    """Differences in how signals are measured."""


class StudyFile(Recipe):
    """`config/studies/<study>.yaml` as it is written: shared sections once, and each arm's differences."""

    name: Name
    """Name of the study; the file carries the same name."""
    title: str
    """Headline of the report."""
    question: str
    """What the study asks, in a sentence or two."""
    seeds: tuple[Seed, ...] = Field(min_length=1)
    """One run per arm and seed."""
    gpus: int = Field(default=0, ge=0)
    """GPUs that each training and generation job needs; 0 runs on CPU."""
    data: DataConfig
    """Where the prompts come from."""
    evaluation: Evaluation
    """How finished policies are judged."""
    primary: Primary = Primary()
    """The one number that verdicts are about."""
    baseline: Name
    """The arm that the others are compared with."""
    family: tuple[Name, ...] | None = None
    """The arms whose p-values are corrected together; null takes all but the baseline."""
    arms: dict[Name, ArmFile] = Field(min_length=1)
    """The cells, by name."""
