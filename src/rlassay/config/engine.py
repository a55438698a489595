"""The `engine` of RL and of the evaluation: the library that samples completions; the `strategy` that trains."""

from typing import Annotated, Literal

from pydantic import Field

from rlassay.config.section import Section

EngineName = Literal["transformers", "vllm"]
Strategy = Literal["ddp", "fsdp2", "deepspeed_zero2", "deepspeed_zero3"]
"""How the processes of a training job share the policy: whole in each, or its weights, gradients and optimizer state
divided."""
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
    """With mode server, its address, such as `http://localhost:8000`."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """With mode colocate, GPUs that share one copy of the model; it divides `gpus`."""
    sleep_level: Literal[0, 2] = 0
    """2 frees vLLM's memory during the optimiser steps: weights are discarded and pushed again. 0 keeps them."""
    importance_sampling_correction: bool = True
    """Whether the loss is multiplied by the ratio of the trainer's probability of a completion to vLLM's."""
    importance_sampling_mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = (
        "sequence_mask"
    )
    """The ratio of each token or of each whole completion; out of bounds it is set to the bound, or to 0."""
    importance_sampling_clip_max: float | None = Field(default=3.0, gt=0)
    """Upper bound of the ratio; null sets none."""
    importance_sampling_clip_min: float | None = Field(default=None, gt=0)
    """Lower bound of the ratio; null sets none."""
    max_logp_difference: float | None = Field(default=0.2, gt=0)
    """Largest mean gap between the log-probs of vLLM and of the trainer in a generation batch, nats per token; beyond
    it the run stops, since vLLM then has other weights, adapters, images or another template. Null never stops it."""


DEFAULT_ENGINE = TransformersEngine(kind="transformers")


def is_default_engine(value: object) -> bool:
    """For `exclude_if`: studies without an engine keep their fingerprints."""
    return value == DEFAULT_ENGINE


EvaluationEngine = Annotated[TransformersEngine | VLLMEngine, Field(discriminator="kind")]
RLEngine = Annotated[TransformersEngine | VLLMSampler, Field(discriminator="kind")]
