"""The record of one generation batch, and functions that gather and split it over processes.

A generation batch holds the completions that TRL samples at once: groups of `num_generations`, spread over the
processes in order. Sizes: B completions on this process, N on all processes together, R rewards, T tokens.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rlassay.advantages import total_rewards
from rlassay.credit import Credit, TokenSignals
from rlassay.rewards.outcomes import FailureKind
from rlassay.signals.measuring import SignalBatch
from rlassay.training.algorithms.groups import ChosenGroups

TRLCompletion = str | list[dict[str, Any]]
"""A completion in TRL's plain or conversational format."""

IMAGE_INPUTS = (
    *("pixel_values", "image_grid_thw", "pixel_attention_mask", "spatial_shapes", "image_sizes"),
    *("token_type_ids", "mm_token_type_ids", "image_position_ids"),
)
"""Model inputs, besides the tokens, that TRL keeps in a generation batch."""
SPLIT_BY = ("num_images", "num_tiles")
"""Counts by which TRL splits them into chunks."""


@dataclass(frozen=True, kw_only=True)
class BatchRewards:
    """The rewards of N completions."""

    names: list[str]
    """Names of the R rewards."""
    raw: Float[Tensor, "completions rewards"]
    """(N, R), values as the rewards returned them; NaN = could not score."""
    rewards_per_func: Float[Tensor, "completions rewards"]
    """(N, R), input of TRL's advantages: `raw` with the NaN of our own rewards imputed."""
    weights: Float[Tensor, "rewards"]
    """(R,), weights at this step."""
    failed: dict[str, list[FailureKind | None]]
    """For each of our rewards, the kind of failure on each of the N completions; None where it did not fail."""
    metrics: dict[str, list[dict[str, float]]]
    """For each of our rewards, its further metrics of the N completions, by name."""
    num_generations: int
    """Completions per prompt; those of a prompt are neighbours."""

    @property
    def weighted(self) -> Float[Tensor, "completions rewards"]:
        """(N, R), contribution of each reward to the total of each completion."""
        return self.rewards_per_func * self.weights

    def totals(self, aggregation: str) -> Float[Tensor, "completions"]:
        """(N,), the total reward of each completion under TRL's `multi_objective_aggregation`, see `total_rewards`."""
        normalize_first = aggregation == "normalize_then_sum"
        return total_rewards(self.rewards_per_func, self.weights, self.num_generations, normalize_first=normalize_first)


@dataclass(frozen=True, kw_only=True)
class GreedyCompletions:
    """The greedy completions of the prompts of N completions."""

    rewards: Float[Tensor, "completions"]
    """(N,), total reward of the greedy completion of each completion's prompt; NaN = no reward could score it."""
    token_counts: list[int]
    """(N), its tokens, on the first completion of each prompt; 0 on the others, so that the sum counts it once."""


@dataclass(kw_only=True)
class GenerationBatch:
    """One generation batch in the trainer; each step fills the fields listed under its name."""

    rows: list[dict[str, Any]]
    """(B), dataset rows, one per completion."""
    is_training: bool
    """False = TRL evaluates."""
    num_generations: int
    """Completions per prompt."""
    step: int
    """Optimiser step for which it is sampled, from 1."""
    seconds: dict[str, float] = field(default_factory=lambda: {"signals": 0.0, "reward": 0.0})
    """Wall time of `signals`, `reward` and `generation` (sampling and log-probabilities), s."""
    chosen: ChosenGroups | None = None
    """Completions that dynamic sampling and replay chose before TRL processes the batch; None lets TRL sample."""
    trained: Bool[Tensor, "completions"] | None = None
    """(N,), completions that train; None = all."""

    # Sampled by TRL.
    prompts: list[Any] = field(init=False)
    """(B), texts or conversations."""
    completions: list[TRLCompletion] = field(init=False)
    """(B), decoded."""
    completion_ids: list[list[int]] = field(init=False)
    """(B), token ids, the end-of-sequence token included."""

    prompt_tokens: list[list[int]] = field(init=False)
    """(B), token ids of the prompts, as TRL sampled from them."""
    tool_mask: list[list[int]] | None = field(init=False)
    """(B), 1 for each completion token that the model sampled, else 0; None = all 1. A tool or an environment wrote
    tokens with 0."""
    tool_images: list[list[Any]] = field(init=False)
    """(B), images that tools added to each completion; empty without tools."""

    # Measure.
    measured: SignalBatch = field(init=False)
    """Signals of the B completions."""
    signals: list[dict[str, float]] = field(init=False)
    """(B), signals of each completion by name, for rewards; without undefined ones."""
    all_signals: list[dict[str, float]] = field(init=False)
    """(N), the same of all processes."""

    # Reward.
    rewards: BatchRewards = field(init=False)
    """Rewards of the N completions."""

    # Advantage.
    completion_mask: Int[Tensor, "batch time"] = field(init=False)
    """(B, T), 1 on the tokens that the loss counts."""
    kl_penalty_BT: Float[Tensor, "batch time"] | None = None
    """(B, T), nats taken from the reward of each token; None without a KL penalty in the reward."""
    advantages_B: Float[Tensor, "batch"] = field(init=False)
    """(B,), before credit; for advantages per token, the mean over each completion's tokens."""
    greedy: GreedyCompletions | None = None
    """The greedy completions, where the estimator reads them."""

    # Credit.
    token_signals: TokenSignals = field(init=False)
    """(N, T), signals, mask and advantages of all processes."""
    credit: Credit = field(init=False)
    """(N, T), credit weights."""
    kl_metrics: dict[str, float] = field(init=False)
    """Metrics of the weights of the KL penalty; empty without any."""

    @property
    def prompt_ids(self) -> list[str]:
        """(B), the prompt that each completion answers."""
        return [prompt_key(row) for row in self.rows]

    @property
    def images(self) -> list[list[Any]]:
        """(B), each prompt's images and clips, then images that tools added to its completion."""
        added = self.tool_images or [[] for _ in self.prompts]
        own = zip(self.prompts, added, strict=True)
        return [[*images_of(prompt), *clips_of(prompt), *(of_tools or ())] for prompt, of_tools in own]


def gathered_signals(
    accelerator: Any,
    measured: SignalBatch,
    completion_mask: Int[Tensor, "batch time"],
    advantages_B: Float[Tensor, "batch"],
) -> TokenSignals:
    """Token signals of all processes; image signals are NaN where a process measured none.

    Args:
        accelerator: the trainer's `accelerate.Accelerator`, which has no types.
        measured: signals of this process.
        completion_mask: (B, T), 1 on the tokens of this process that the loss counts.
        advantages_B: (B,), advantages of this process.
    """
    length = completion_mask.shape[1]

    def of_all(values_BT: Tensor | None) -> Tensor | None:
        return None if values_BT is None else gathered(accelerator, _padded(values_BT, length), math.nan)

    dominance_BT = None if measured.attention is None else measured.attention.dominance_BT
    missing_BT = torch.full_like(completion_mask, math.nan, dtype=torch.float32)
    return TokenSignals(
        completion_mask=gathered(accelerator, completion_mask, 0),
        advantages_B=accelerator.gather(advantages_B),
        has_image_B=accelerator.gather(measured.has_image_B),
        entropy_BT=of_all(measured.entropy_BT),
        logps_BT=of_all(measured.logps_BT),
        # A process without images measures no image signal, but must join when the others gather theirs.
        perception_BT=of_all(missing_BT if measured.perception_BT is None else measured.perception_BT),
        dominance_BT=of_all(missing_BT if dominance_BT is None else dominance_BT),
        draws_BT=of_all(measured.draws_BT),
    )


def whole_sequences(
    output: Mapping[str, Any],
) -> tuple[Int[Tensor, "batch positions"], Int[Tensor, "batch positions"]]:
    """Token ids and attention mask of a TRL batch, prompts and completions together."""
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
    return ids, torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)


def scored_by_trl(trainer: Any, model: Any, output: Mapping[str, Any]) -> Float[Tensor, "batch time"]:
    """(B, T), log-probabilities of the completion tokens, by TRL's own function.

    It runs in chunks of the training batch size.

    Args:
        trainer: the `CreditGRPOTrainer`, which has no types.
        model: the policy, or a function that TRL calls in its place.
        output: the generation batch of this process, as TRL returns it.
    """
    ids, mask = whole_sequences(output)
    images = {name: output[name] for name in (*IMAGE_INPUTS, *SPLIT_BY) if name in output}
    size, length = trainer.args.per_device_train_batch_size, output["completion_ids"].shape[1]
    return trainer._get_per_token_logps_and_entropies(model, ids, mask, length, batch_size=size, **images)[0]


def own_rows(accelerator: Any, values: Shaped[Tensor, "completions *rest"], size: int) -> Shaped[Tensor, "..."]:
    """The `size` rows of this process, from values of all processes."""
    first = accelerator.process_index * size
    return values[first : first + size]


def gathered(accelerator: Any, values_BT: Tensor, fill: int | float) -> Tensor:
    """(N, T), the values of all processes, filled up to the longest completion."""
    return accelerator.gather(accelerator.pad_across_processes(values_BT, dim=1, pad_index=fill))


def _padded(values_BT: Float[Tensor, "batch some"], length: int) -> Float[Tensor, "batch time"]:
    return torch.nn.functional.pad(values_BT, (0, length - values_BT.shape[1]), value=math.nan)


def prompt_key(row: dict[str, Any]) -> str:
    """`prompt_id` of a dataset row as text; else a hex digest of its prompt, or of the whole row without a prompt."""
    if row.get("prompt_id") is not None:
        return str(row["prompt_id"])
    content = row["prompt"] if "prompt" in row else {name: row[name] for name in sorted(row)}
    return hashlib.sha256(json.dumps(content, default=lambda _: "image").encode()).hexdigest()[:16]


def completion_text(completion: TRLCompletion) -> str:
    """The sampled text of a completion: that of the assistant's turns, without results of tools."""
    if isinstance(completion, str):
        return completion
    turns = [turn for turn in completion if turn.get("role", "assistant") == "assistant"]
    return "".join(turn_text(turn.get("content")) for turn in turns)


def turn_text(content: str | list[dict[str, Any]] | None) -> str:
    """The text of a turn's content, whatever its format."""
    if content is None:  # a turn that only calls tools
        return ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


def images_of(prompt: str | list[dict[str, Any]]) -> list[Any]:
    """The images of a conversation in order; a plain prompt has none."""
    return _shown(prompt, "image")


def clips_of(prompt: str | list[dict[str, Any]]) -> list[Any]:
    """The clips of a conversation in order, for the processor's video input; a plain prompt has none."""
    return _shown(prompt, "video")


def _shown(prompt: str | list[dict[str, Any]], kind: str) -> list[Any]:
    if isinstance(prompt, str):
        return []
    parts = [part for turn in prompt if isinstance(turn.get("content"), list) for part in turn["content"]]
    return [part[kind] for part in parts if part["type"] == kind]
