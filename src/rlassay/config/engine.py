"""The `evaluation` section, the `engine` sections that sample completions, and the names of `strategy`."""

from typing import Annotated, Literal

from pydantic import Field

from rlassay.config.section import Section, is_none
from rlassay.records import Mode

EngineName = Literal["transformers", "vllm"]
Strategy = Literal["ddp", "fsdp2", "deepspeed_zero2", "deepspeed_zero3"]
"""How the processes of a training job hold the policy. `ddp` keeps it whole in each; `deepspeed_zero2` divides
gradients and optimizer state, `fsdp2` and `deepspeed_zero3` the weights as well."""
PLACEMENT = {"gpu_memory_utilization", "server_base_url", "max_logp_difference"}
"""Keys of an engine that decide no completion, and enter no fingerprint."""
ANSWERING = ("generate", "held_out_curve")
"""Stages in which the engine of the evaluation samples."""


class TransformersEngine(Section):
    """`generate` of transformers."""

    kind: Literal["transformers"]
    """Selects this section."""


class VLLMEngine(Section):
    """vLLM, in the process of the job."""

    kind: Literal["vllm"]
    """Selects this section."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of the GPU's memory that vLLM reserves."""
    max_model_length: int | None = Field(default=None, ge=1)
    """Longest prompt and completion together, tokens; null takes the model's own limit."""
    enable_prefix_caching: bool = True
    """Whether prompts that begin alike share their keys and values."""
    tensor_parallel_size: int = Field(default=1, ge=1, exclude_if=lambda given: given == 1)
    """GPUs that share one copy of the model, at most `gpus`."""


class VLLMSampler(VLLMEngine):
    """vLLM under TRL's trainer, under TRL's names without their prefix `vllm_`."""

    gpu_memory_utilization: float = Field(default=0.3, gt=0, le=1)
    """Share of the GPU's memory that vLLM reserves beside the trainer."""
    mode: Literal["colocate", "server"] = "colocate"
    """`colocate` samples in the training processes; `server` on `vllm serve` at `server_base_url`."""
    server_base_url: str | None = None
    """With mode server, its address, such as `http://localhost:8000`. One run at a time samples on a server."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """With mode colocate, GPUs that share one copy of the model; it divides `gpus`."""
    sleep_level: Literal[0, 2] = 0
    """2 frees vLLM's memory during the optimiser steps: weights are discarded and pushed again. 0 keeps them."""
    importance_sampling_correction: bool = True
    """Whether to multiply the loss by the trainer's probability of a completion over vLLM's."""
    importance_sampling_mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = (
        "sequence_mask"
    )
    """The ratio of each token or of each whole completion; out of bounds it is set to the bound, or to 0."""
    importance_sampling_clip_max: float | None = Field(default=3.0, gt=0)
    """Upper bound of the ratio; null sets none."""
    importance_sampling_clip_min: float | None = Field(default=None, gt=0)
    """Lower bound of the ratio; null sets none."""
    max_logp_difference: float | None = Field(default=0.2, gt=0)
    """Largest mean gap between log-probs of vLLM and of the trainer, nats per token. The mean is over a generation
    batch; beyond it the run stops, since vLLM then has other weights, adapters, images or another template. Null never
    stops it."""


DEFAULT_ENGINE = TransformersEngine(kind="transformers")


def is_default_engine(value: object) -> bool:
    """For `exclude_if`: studies without an engine keep their fingerprints."""
    return value == DEFAULT_ENGINE


def on_server(engine: TransformersEngine | VLLMEngine) -> str | None:
    """The address of the server that samples; None for other engines."""
    return engine.server_base_url if isinstance(engine, VLLMSampler) and engine.mode == "server" else None


EvaluationEngine = Annotated[TransformersEngine | VLLMEngine, Field(discriminator="kind")]
RLEngine = Annotated[TransformersEngine | VLLMSampler, Field(discriminator="kind")]


class Beams(Section):
    """Beam search; null keys take the value of the model's generation config."""

    num_beams: int | None = Field(default=None, ge=1)
    """Beams of the search."""
    length_penalty: float | None = None
    """Power of the length by which a beam's log-prob is divided; above 0 it favours longer completions."""
    no_repeat_ngram_size: int | None = Field(default=None, ge=0)
    """Length of the runs of tokens that may appear once only; 0 allows repetition."""


class Evaluation(Section):
    """How trained policies are evaluated."""

    engine: EvaluationEngine = Field(default=DEFAULT_ENGINE, exclude_if=is_default_engine)
    """The library that samples completions; by default transformers."""
    sets: tuple[str, ...] = Field(default=("test",), min_length=1)
    """Splits that each policy answers."""
    num_samples: int = Field(default=8, ge=1)
    """Sampled completions per prompt (avg@k)."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus (top-p) of the sampling."""
    top_k: int = Field(default=0, ge=0, exclude_if=lambda given: given == 0)
    """Number of likeliest tokens to sample from; 0 takes all."""
    min_p: float = Field(default=0.0, ge=0, lt=1, exclude_if=lambda given: given == 0)
    """Smallest probability of a sampled token, as a share of the likeliest token's; 0 takes all."""
    greedy: bool = True
    """Also decode each prompt once greedily."""
    beams: Beams | None = Field(default=None, exclude_if=is_none)
    """Also decode each prompt once by beam search; null leaves it out."""
    max_completion_length: int = Field(ge=1)
    """Longest completion, tokens."""
    batch_size: int = Field(default=64, ge=1)
    """Completions decoded at once."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sampling; combined with the run's own seed."""
    every: int | None = Field(default=None, ge=1, exclude_if=is_none)
    """Steps between two points of the held-out curve. Every so many steps a run keeps its weights until they have
    answered `curve_set`. Null draws no curve."""
    curve_set: str | None = Field(default=None, exclude_if=is_none)
    """The evaluation set of the held-out curve, one of `sets`; null takes that of `primary`."""
    while_training: bool = Field(default=False, exclude_if=lambda given: not given, repr=False)
    """Whether a process beside each training evaluates the points of the curve as they come. It has a core or GPUs of
    its own, and the points are the same. False leaves them until the run has trained."""

    @property
    def modes(self) -> dict[Mode, int]:
        """Completions per prompt by how they are decoded, in the order of the work."""
        of_beams: dict[Mode, int] = {} if self.beams is None else {"beams": 1}
        return {"sampled": self.num_samples, "greedy": int(self.greedy), **of_beams}
