"""Three forms of a study: its file, a scale that changes it, and the resolved study with complete arms."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from rlassay.config.data import DataConfig
from rlassay.config.section import Section, alternatives, is_section
from rlassay.config.training import Recipe, RewardConfig

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

SectionT = TypeVar("SectionT", bound=Section)

SCORE_METRICS = ("choice_accuracy_lenient", "parse_failure", "parse_failure_lenient", "token_count", "truncated")
"""Metrics of the score stage besides the rewards of the study's arms."""


class Evaluation(Section):
    """How trained policies are evaluated."""

    sets: tuple[str, ...] = Field(default=("test",), min_length=1)
    """Splits that each policy answers."""
    num_samples: int = Field(default=8, ge=1)
    """Sampled completions per prompt (avg@k)."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus (top-p) of the sampling."""
    greedy: bool = True
    """Also decode each prompt once greedily."""
    max_completion_length: int = Field(ge=1)
    """Longest completion, tokens."""
    batch_size: int = Field(default=64, ge=1)
    """Completions decoded at once."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sampling; combined with the run's own seed."""


class Primary(Section):
    """The metric that decides the verdicts, declared before the study runs."""

    set: str = "test"
    """The evaluation set."""
    metric: str = "choice_accuracy"
    """A metric of the score stage."""
    mode: Literal["sampled", "greedy"] = "sampled"
    """Which completions count: the sampled ones, or the greedy one."""
    smallest_effect: float | None = Field(default=None, gt=0)
    """Smallest difference that matters, in the metric's unit (0.05 = 5 points of a share); null declares none.

    With it, the report says of which arms an effect that large is excluded, and what it takes to find one.
    """


class Arm(Section):
    """One arm of a study, with its complete recipe."""

    label: str
    """Its name on the page."""
    color: str | None = Field(default=None, pattern=r"^#[0-9a-fA-F]{6}$")
    """Its colour in the figures, `#rrggbb`."""
    varies: tuple[str, ...] = ()
    """Key paths in which it may differ from the baseline; any other difference is a confound."""
    recipe: Recipe
    """Everything that decides its weights, apart from data and seed."""


class StudyKeys(Section):
    """The keys that a study file and a resolved study share."""

    name: Name
    """Name of the study and of its file; also of its MLflow experiment."""
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
    """How trained policies are evaluated."""
    primary: Primary = Primary()
    """The metric that decides the verdicts."""
    baseline: Name
    """The arm that the others are compared with."""


class Study(StudyKeys):
    """One resolved study; `load_study` returns it."""

    scale: str | None = None
    """The scale that was applied."""
    family: tuple[Name, ...]
    """The arms whose p-values are corrected together (Holm)."""
    arms: dict[Name, Arm] = Field(min_length=1)
    """The arms by name."""

    @property
    def id(self) -> str:
        """Name of its results folder: `<study>` or `<study>-<scale>`."""
        return self.name if self.scale is None else f"{self.name}-{self.scale}"

    @property
    def rewards(self) -> dict[str, RewardConfig]:
        """Every reward of any arm, with the options that score all policies.

        The options are the baseline's; for a reward that the baseline lacks, those of the first arm that has it.
        """
        sections: dict[str, RewardConfig] = {}
        for name, arm in self.arms.items():
            for reward, section in arm.recipe.rewards.items():
                if reward not in sections or name == self.baseline:
                    sections[reward] = section
        return sections


class _ArmHead(Section):
    """The keys of an arm that are not part of its recipe."""

    from_: Name | None = Field(default=None, alias="from")
    """The arm whose sections it starts from; null starts from the study's own sections."""
    label: str | None = None
    """Its name on the page; the key by default."""
    color: str | None = Field(default=None, pattern=r"^#[0-9a-fA-F]{6}$")
    """Its colour in the figures, `#rrggbb`."""
    varies: tuple[str, ...] = ()
    """Key paths in which it may differ from the baseline, such as `rewards` or `rl.loss_type`."""


def _has_keys(field: FieldInfo) -> bool:
    """Whether a key holds a section or a mapping, of which differences can be written."""
    return any(is_section(option) or get_origin(option) is dict for option in alternatives(field.annotation))


def _difference_keys(recipe: type[Recipe]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Each key of a recipe in an arm's form: differences of a section or mapping, any other value whole."""
    for key, field in recipe.model_fields.items():
        options = list(alternatives(field.annotation))
        about = field.description
        if _has_keys(field):
            annotation: Any = dict[str, Any]
            about = f"Differences in the {key} section"
            about += "; null leaves it out." if type(None) in get_args(field.annotation) else "."
            if any(get_origin(option) is dict for option in options):
                about = f"Differences in the {key}; an entry that is null is removed."
        elif any(get_origin(option) is tuple for option in options):
            annotation = list[dict[str, Any]]
        else:
            annotation = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        yield key, (annotation | None, Field(default=None, description=about))


def _with_keys(base: type[SectionT], name: str, keys: dict[str, tuple[Any, Any]]) -> type[SectionT]:
    """A section with further keys, each given by its type and its pydantic field."""
    return cast("type[SectionT]", cast(Any, create_model)(name, __base__=base, **keys))


class ArmFile(_with_keys(_ArmHead, "ArmKeys", dict(_difference_keys(Recipe)))):
    """An arm in a study file: its differences only."""


class StudyFile(StudyKeys, Recipe):
    """`config/studies/<study>.yaml`: the shared sections once, and each arm's differences."""

    family: tuple[Name, ...] | None = None
    """The arms whose p-values are corrected together; null takes all but the baseline."""
    arms: dict[Name, ArmFile] = Field(min_length=1)
    """The arms by name."""


_OVERLAID: dict[str, tuple[Any, Any]] = {
    key: (dict[str, Any], Field(default=dict[str, Any](), description=f"Differences in the {key} section."))
    for key, field in StudyFile.model_fields.items()
    if key != "arms" and _has_keys(field)
}


class Overlay(_with_keys(Section, "OverlayKeys", _OVERLAID)):
    """Differences by section, in the shape of a study file.

    Another `kind` replaces a section; `splits` of the data replace the study's. A warm start or reward that an arm
    lacks is not added.
    """


class ScaleFile(Overlay):
    """`config/scales/<scale>.yaml`."""

    seeds: list[Any] | None = None
    """Replaces the study's seeds."""
    gpus: int | None = None
    """Replaces the study's number of GPUs."""
    adds_warm_start: bool = False
    """Give a study without any warm start this file's `sft` section, since the scale's model needs one."""
    by_source: dict[str, Overlay] = Field(default={})
    """By the `kind` of a study's data: merged over the rest of this file, whose `data` it replaces."""
