"""Three forms of a study: its file, a scale that changes it, the resolved study.

The resolved study has complete arms.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

from pydantic import Discriminator, Field, Tag, create_model
from pydantic.fields import FieldInfo

from rlassay.config.data import DataConfig
from rlassay.config.engine import ANSWERING, EngineName, Evaluation, Strategy, VLLMEngine
from rlassay.config.model import Reference
from rlassay.config.section import Section, alternatives, is_false, is_none, is_section
from rlassay.config.training import Recipe, RewardConfig
from rlassay.layout import results_name
from rlassay.records import Mode

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

Design = Literal["explicit", "leave_one_out", "add_one_in", "factorial", "fractional"]

SectionT = TypeVar("SectionT", bound=Section)

SCORE_METRICS = ("choice_accuracy_lenient", "parse_failure", "parse_failure_lenient", "token_count", "truncated")
"""Metrics of the score stage besides the rewards of the study's arms."""


class Primary(Section):
    """The metric that decides the verdicts, declared before the study runs."""

    set: str = "test"
    """The evaluation set."""
    metric: str = "choice_accuracy"
    """A metric of the score stage."""
    mode: Mode = "sampled"
    """Which completions count: the sampled ones, the greedy one, or that of the beam search."""
    over: str | None = Field(default=None, pattern=r"^last_([2-9]|[1-9]\d+)$", exclude_if=is_none)
    """Weights whose scores are averaged for each run. `last_3` takes the last three points of its held-out curve, of
    which the trained weights are one. Null takes the trained weights alone."""
    smallest_effect: float | None = Field(default=None, gt=0)
    """The smallest difference that matters, in the metric's unit (0.03 is 3 points of accuracy); null declares none."""

    @property
    def num_checkpoints(self) -> int:
        """How many weights of a run are averaged, the trained ones among them."""
        return 1 if self.over is None else int(self.over.removeprefix("last_"))


class Arm(Section):
    """One arm of a study, with its complete recipe."""

    label: str
    """Its name on the page."""
    color: str | None = Field(default=None, pattern=r"^#[0-9a-fA-F]{6}$")
    """Its colour in the figures, `#rrggbb`."""
    varies: tuple[str, ...] = ()
    """Key paths in which it may differ from the baseline; any other difference is a confound."""
    has: tuple[Name, ...] = ()
    """The ingredients that a design gave it, in the order of the study; empty for an arm written by hand."""
    recipe: Recipe
    """Everything that decides its weights, apart from data and seed."""


class StudyKeys(Section):
    """The keys that a study file and a resolved study share."""

    name: Name
    """Name of the study and of its file; also of its MLflow experiment."""
    title: str
    """Headline of the report."""
    question: str
    """The question of the study, in a sentence or two."""
    gpus: int = Field(default=0, ge=0)
    """GPUs of each training and generation job, with one process per GPU; each process takes
    `per_device_train_batch_size` samples. 0 runs on CPU."""
    processes: int = Field(default=1, ge=1, exclude_if=lambda given: given == 1)
    """Without GPUs, processes that share each training and generation job, on this machine. Each takes
    `per_device_train_batch_size` samples, so that two of them double a batch."""
    nodes: int = Field(default=1, ge=1, exclude_if=lambda given: given == 1)
    """Machines that share each job, each with `gpus` or `processes` of its own; more than one needs Slurm."""
    strategy: Strategy = Field(default="ddp", exclude_if=lambda given: given == "ddp")
    """How the processes of a training job share the policy. It is whole in each, or its training state is divided."""
    bf16: bool | None = Field(default=None, exclude_if=is_none)
    """Whether training computes in bfloat16, in which DeepSpeed saves weights too; null does so on GPUs alone."""
    cpu_offload: bool = Field(default=False, exclude_if=is_false)
    """Keep the optimizer state in the machine's memory while no GPU needs it. With `fsdp2` and `deepspeed_zero3` the
    weights are kept there too. It saves GPU memory and costs time."""
    data: DataConfig
    """Where the prompts come from."""
    evaluation: Evaluation
    """How trained policies are evaluated."""
    primary: Primary = Primary()
    """The metric that decides the verdicts."""
    references: dict[Name, Reference] = Field(default={}, exclude_if=lambda given: not given)
    """Models beside the arms, by name; a scale leaves them out, since it replaces the arms' model."""
    baseline: Name
    """The arm that the others are compared with."""


class SequentialSeeds(Section):
    """Seeds in rounds: after each, only arms still undecided against the baseline get more.

    Tests and intervals hold over all looks together, by alpha spending (`rlassay.stats.sequential`).
    """

    start: int = Field(ge=2)
    """Seeds of every arm before the first look."""
    max: int = Field(ge=3)
    """The most seeds of an arm: the budget."""
    step: int = Field(default=1, ge=1)
    """Seeds that a round adds."""
    stop: Literal["decided", "decided_or_hopeless"] = "decided"
    """When an arm gets no more seeds: once it has a verdict; or also once its interval excludes a gain as large as
    `primary.smallest_effect`, which drops it."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Chance of a false verdict, over all looks and all arms of the family."""

    @property
    def looks(self) -> tuple[int, ...]:
        """Seeds at each look; the last is `max`."""
        return (*range(self.start, self.max, self.step), self.max)


def _form_of_seeds(seeds: Any) -> str:
    return "[rounds]" if isinstance(seeds, dict | SequentialSeeds) else "[list]"


class Study(StudyKeys):
    """One resolved study; `load_study` returns it."""

    seeds: tuple[Seed, ...] = Field(min_length=1)
    """One run per arm and seed; with sequential seeds, the most that an arm may have, in their order."""
    sequential: SequentialSeeds | None = None
    """How seeds are added in rounds; null runs all of them."""
    scale: str | None = None
    """The scale that was applied."""
    engine: EngineName | None = None
    """The engine that was put in place of the study's own."""
    family: tuple[Name, ...]
    """The arms whose p-values are corrected together (Holm)."""
    design: Design = "explicit"
    """How its arms were made."""
    ingredients: dict[Name, str] = Field(default={})
    """The labels of the design's ingredients by name; empty for explicit arms."""
    arms: dict[Name, Arm] = Field(min_length=1)
    """The arms by name."""

    @property
    def processes_per_node(self) -> int:
        """Processes of a job on one machine: one per GPU, or `processes` on CPU.

        It holds for training and generation jobs.
        """
        return max(self.gpus, self.processes)

    @property
    def num_processes(self) -> int:
        """Processes of each training and generation job, on all its machines."""
        return self.nodes * self.processes_per_node

    @property
    def curve_set(self) -> str | None:
        """The evaluation set of the held-out curves; None for a study without them."""
        return None if self.evaluation.every is None else self.evaluation.curve_set or self.primary.set

    def curve_points(self, steps: int) -> range:
        """The steps of a run's held-out curve between its start and its end after `steps`; none without a curve."""
        every = self.evaluation.every
        return range(0) if every is None else range(every, steps, every)

    @property
    def judging_processes(self) -> int:
        """Processes beside each RL job that evaluate its held-out curve meanwhile: 0 or 1."""
        return int(self.evaluation.while_training)

    @property
    def judging_gpus(self) -> int:
        """GPUs of that process: those of one copy of the model; 0 without the process, or on CPU."""
        engine = self.evaluation.engine
        copy = engine.tensor_parallel_size if engine.kind == "vllm" else 1
        return min(copy, self.gpus) * self.judging_processes

    @property
    def id(self) -> str:
        """Name of its results folder."""
        return results_name(self.name, self.scale, self.engine)

    def placed(self, stage: str) -> "Study":
        """The study with the GPUs, processes and nodes of one stage's jobs; with vLLM, those of one copy of the model.

        vLLM would open every copy on a job's first GPUs, and joins processes in its own way.
        """
        engine = self._vllm_of(stage)
        if engine is None:
            return self
        gpus = min(engine.tensor_parallel_size, self.gpus)
        return self.model_copy(update={"gpus": gpus, "processes": 1, "nodes": 1})

    def ranks_of(self, stage: str) -> int:
        """Processes to launch for one stage's job; vLLM starts those of a divided model itself."""
        return self.num_processes if self._vllm_of(stage) is None else 1

    def _vllm_of(self, stage: str) -> VLLMEngine | None:
        """The section of the vLLM engine that samples in one stage's jobs; None if they sample without vLLM."""
        engine = self.evaluation.engine
        return engine if stage in ANSWERING and engine.kind == "vllm" else None

    @property
    def uses_vllm(self) -> bool:
        """Whether vLLM samples in RL of any arm, or in the evaluation."""
        engines = [self.evaluation.engine, *(arm.recipe.rl.engine for arm in self.arms.values())]
        return any(engine.kind == "vllm" for engine in engines)

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


class _PresetKey(Section):
    """The key that lays a preset under the keys written beside it."""

    algorithm: Name | None = None
    """A preset in `config/algorithms/`, laid under the keys written here and over the inherited ones. Its values become
    part of the study, so that `varies` of an arm names the keys that differ, such as `rl.loss_type`."""


class _ArmHead(_PresetKey):
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
    """Each key of a recipe as an arm writes it.

    Of a section or mapping an arm writes the differences, of any other key the whole value.
    """
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


class _IngredientHead(_PresetKey):
    """The keys of an ingredient that are not part of a recipe."""

    label: str | None = None
    """Its name on the page; the key by default."""
    varies: tuple[str, ...] | None = None
    """Key paths that it may change, such as `rl.loss_type`; null takes those that it writes."""


class IngredientFile(_with_keys(_IngredientHead, "IngredientKeys", dict(_difference_keys(Recipe)))):
    """An ingredient: differences from the study's own sections; its credit parts join those of other ingredients."""


_PRESET_KEYS = ("rl", "credit", "credit_denominator", "entropy_penalty_coef")


class AlgorithmFile(
    _with_keys(Section, "AlgorithmKeys", {key: of for key, of in _difference_keys(Recipe) if key in _PRESET_KEYS})
):
    """`config/algorithms/<algorithm>.yaml`: the values of a preset, in the form of an arm's differences."""


class DesignKeys(Section):
    """The keys of a study file from which its arms are made, besides `arms`."""

    design: Design = "explicit"
    """How arms are made of `ingredients`; `explicit` takes them as written.

    `none` is the arm without any ingredient, `all` the arm with every one. `leave_one_out` makes `all` and each arm
    that lacks one; `add_one_in` makes `none` and each arm that has one; `factorial` makes an arm of every subset;
    `fractional` makes the subsets that its `generators` admit.
    """
    ingredients: dict[Name, IngredientFile] = Field(default={})
    """Ingredients of a `design`'s arms, each as differences from the study's own sections."""
    generators: dict[Name, tuple[Name, ...]] = Field(default={})
    """With `design: fractional`, ingredient -> the ingredients that decide it. An arm has it if it has an odd number of
    them. By default the last ingredient follows from all others, which makes half as many arms as `factorial`."""
    select_arms: tuple[Name, ...] | None = Field(default=None, min_length=1)
    """Run only these arms of the study; null runs all."""


class StudyFile(StudyKeys, DesignKeys, _PresetKey, Recipe):
    """`config/studies/<study>.yaml`: the shared sections once, and each arm's differences."""

    extends: str | None = Field(default=None, min_length=1)
    """Another study, by the name of its file or a path. This file states the differences; an entry of its arms, rewards
    or ingredients that is null is removed."""

    seeds: Annotated[
        Annotated[tuple[Seed, ...], Field(min_length=1), Tag("[list]")] | Annotated[SequentialSeeds, Tag("[rounds]")],
        Discriminator(_form_of_seeds),
    ]
    """One run per arm and seed; or rounds that add seeds until every comparison is decided."""
    family: tuple[Name, ...] | None = None
    """The arms whose p-values are corrected together; null takes all but the baseline."""
    arms: dict[Name, ArmFile] = Field(min_length=1)
    """The arms by name. With a design, further arms, which may start `from` its arms, and labels and colours of
    these."""


_OVERLAID: dict[str, tuple[Any, Any]] = {
    key: (dict[str, Any], Field(default=dict[str, Any](), description=f"Differences in the {key} section."))
    for key, field in StudyFile.model_fields.items()
    if key not in ("arms", "seeds", "references", *DesignKeys.model_fields) and _has_keys(field)
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
    sequential_seeds: dict[str, Any] = Field(default={})
    """Differences in the seeds of a study that adds them in rounds."""
    gpus: int | None = None
    """Replaces the study's number of GPUs."""
    at_most: dict[str, Any] = Field(default={})
    """Ceilings by section and key. A larger number of the study or an arm is lowered, an absent one stays absent."""
    adds_warm_start: bool = False
    """Give a study without any warm start this file's `sft` section. The scale's model needs one."""
    lora: dict[str, Any] = Field(default={})
    """Differences in the adapters (`model.lora`) of arms whose model is replaced by another kind; without this key it
    has none."""
    seq2seq: Overlay | None = None
    """Merged over all the rest for a study of encoder-decoders."""
    by_source: dict[str, Overlay] = Field(default={})
    """Overlays by the `kind` of a study's data. Each is merged over the rest of this file, whose `data` it replaces."""
