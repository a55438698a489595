"""`config/config.yaml`: which study to run, and settings that do not change its results."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from rlassay.config.engine import EngineName
from rlassay.config.section import Section

TrackerName = Literal["tensorboard", "wandb", "console"]
Trackers = Sequence[TrackerName]


class Tracking(Section):
    """Whether, where and how often metrics go to MLflow, and further trackers of training."""

    enabled: bool = True
    """Whether runs are fed to MLflow; the files on disk are complete either way."""
    uri: str = "sqlite:///mlflow.db"
    """Tracking URI; the default is the store that plain `mlflow ui` opens."""
    interval: float = Field(default=5.0, gt=0)
    """Seconds between two batches."""
    report_to: tuple[TrackerName, ...] = ()
    """Other trackers that training jobs report each step to, by transformers' own callbacks. `tensorboard` writes into
    the run's `state/tensorboard`, `wandb` is set by its own variables (WANDB_MODE), `console` is the log of the job."""
    system_metrics: bool = False
    """Whether the MLflow run of each training job also shows the machine's load. Every ten seconds MLflow's own monitor
    measures CPU, memory, disk, network and, where it can read them, GPUs."""
    register_champion: bool = False
    """Whether the report registers the weights of its best arm in MLflow's model registry. The name is the study's, the
    alias `champion`. Only an arm with the verdict `better` replaces the baseline."""


class HackingThresholds(Section):
    """When the report warns of reward hacking; "rise" is from the first to the last tenth of the steps."""

    reward_rise: float = Field(default=0.05, gt=0)
    """Rise of the summed reward that must show on held-out prompts. It is per unit of summed weights."""
    held_out_gain: float = Field(default=0.02, ge=0)
    """Alarm where the upper end of the primary metric's held-out gain is below this."""
    parser_drift: float = Field(default=0.05, gt=0, le=1)
    """Rise of the share of held-out completions that strict and lenient parser judge differently."""
    repetition: float = Field(default=0.1, gt=0, le=1)
    """Rise of the share of word n-grams that a completion had before."""
    ngram: int = Field(default=4, ge=1)
    """Words of such an n-gram."""
    repeated_tags: float = Field(default=0.2, gt=0, le=1)
    """Rise of the share of completions that open a tag twice."""
    answer_first: float = Field(default=0.05, gt=0, le=1)
    """Rise of the share of completions that answer before their thought ends."""
    at_cap: float = Field(default=0.2, gt=0, le=1)
    """Share of truncated completions in the last tenth, where it rose."""
    entropy_left: float = Field(default=0.05, gt=0, lt=1)
    """Alarm where less than this share of the first tenth's entropy is left."""
    zero_variance: float = Field(default=0.97, gt=0, le=1)
    """Share of the last tenth's groups whose rewards are all equal, where that share rose. Groups that all have the
    highest reward seen are solved and do not count."""
    judge_disagrees: float = Field(default=0.1, gt=0, le=1)
    """Rise of the share of completions that a judge rates above 1/2 although wrong. The primary metric decides which
    are wrong."""


class ReportSettings(Section):
    """Content of the report page."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the intervals."""
    examples: int = Field(default=6, ge=0)
    """Prompts shown side by side for all arms."""
    rollout_steps: int = Field(default=6, ge=0)
    """Steps of training, evenly spaced, whose rollouts the completion browser shows; 0 = none."""
    hacking: HackingThresholds = HackingThresholds()
    """When the page warns of reward hacking."""


Stage = Literal[
    "prepare_data", "sft_train", "rl_train", "generate", "score", "held_out_curve", "decide", "ablation_report"
]
MINUTES: dict[Stage, int] = {
    **{"prepare_data": 240, "sft_train": 1440, "rl_train": 1440},
    **{"generate": 480, "score": 240, "held_out_curve": 1440, "decide": 60, "ablation_report": 60},
}
"""By stage: longest time of a job on a cluster, unless the settings say otherwise."""


class Resources(Section):
    """Limits on the resources of the jobs."""

    threads: int = Field(default=1, ge=1)
    """CPU threads of each process of a training or generation job; Snakemake packs the jobs into its cores."""
    minutes: dict[Stage, Annotated[int, Field(ge=1)]] = Field(default={})
    """Longest time of a job on a cluster, by stage; stages left out get that of `MINUTES`. A training job that is
    ended by it resumes from its newest checkpoint."""
    memory_mb: dict[Stage, Annotated[int, Field(ge=1)]] = Field(default={})
    """MiB that a job asks of a cluster on each of its nodes, by stage; stages left out get an estimate from the size
    of the study's models. A job that is sent again asks for more."""

    hang_minutes: float = Field(default=120.0, gt=0)
    """Minutes without progress after which a job of several processes counts as hanging. In that time it must finish a
    training step, a batch of answers or a phase such as loading the model; otherwise it is ended. It resumes when it is
    started again."""

    def minutes_of(self, stage: Stage) -> int:
        """Longest time of a stage's job on a cluster."""
        return self.minutes.get(stage, MINUTES[stage])


LogName = Annotated[str, Field(pattern=r"^[\w.-]+\.md$")]


class Diagnostics(Section):
    """Readable logs that a training job writes while it runs, in its `state/` folder."""

    realtime_rollout_logging: bool = True
    """Whether the watched completions of each step are written with their rewards and token weights."""
    compute_attention_metrics: bool = True
    """Whether to measure attention in arms whose rewards and credit do not ask for it. It is attention to text and to
    images, or of an encoder-decoder to its document."""
    compute_kl_metrics: bool | None = None
    """Whether arms without a KL penalty measure the KL from the policy before RL. It takes a pass of that policy over
    each generation batch; null measures where that needs no second copy of a hub model: with adapters, and for built-in
    models."""
    rollout_log_path: LogName = "rollout_results.md"
    """File of the completions."""
    attention_diag_log_path: LogName = "attention_diagnostics.md"
    """File of the attention measurements."""
    token_weights_log_path: LogName = "token_weights.md"
    """File of the words with their weights."""
    mdi_balance_ratio: float = Field(default=2.0, gt=1)
    """R of the logged balance, clip(1 - |ln MDI| / ln R, 0, 1); the reward of that name has an R of its own."""
    colorize_output: bool = True
    """Whether a terminal shows each step's first completion in colours; files never hold any."""
    prompt_preview_chars: int = Field(default=500, ge=0)
    """Characters of a prompt that the log shows."""
    completion_preview_chars: int = Field(default=2000, ge=0)
    """Characters of a completion that the log shows."""


class Settings(Section):
    """The whole of `config/config.yaml`."""

    study: str = "digits"
    """Name of a file in `config/studies/`, or a path."""
    scale: str | None = None
    """Name of an overlay in `config/scales/`; null runs the study as written."""
    engine: EngineName | None = None
    """`vllm` or `transformers` for RL and evaluation in place of the study's own engines; null keeps these."""
    results: str = "results"
    """Folder that receives everything."""
    tracking: Tracking = Tracking()
    """Metrics sent to MLflow."""
    report: ReportSettings = ReportSettings()
    """Content of the report page."""
    diagnostics: Diagnostics = Diagnostics()
    """Readable logs of a training job."""
    resources: Resources = Resources()
    """Limits on the resources of the jobs."""
