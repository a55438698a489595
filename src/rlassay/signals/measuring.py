"""Signals of a generation batch: measured on finished completions, whatever engine sampled them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlassay.credit import perception
from rlassay.models import tokenizer_of
from rlassay.models.hub import Model, Processor
from rlassay.signals.attention import attention_mass
from rlassay.signals.inputs import ModelInputs, model_inputs
from rlassay.signals.masking import Masking, masked_inputs
from rlassay.signals.randomness import draws, generator
from rlassay.signals.readings import AttentionReading, read_attention, vision_keys
from rlassay.signals.scoring import How, Scores, teacher_forced
from rlassay.signals.segments import layer_segments, segment_ids, vision_grid


@dataclass(frozen=True, kw_only=True)
class SignalPlan:
    """What is measured, and how. Only what rewards and credit go by changes what is learned."""

    also: frozenset[str] = frozenset()
    """Signals to measure besides those that the credit parts need: `entropy`, `perception`, `dominance`."""
    attention: bool = False
    """Whether attention to text and images is measured even if no credit part needs it: rewards may, and logs."""
    layers: Literal["thirds", "paper"] = "thirds"
    """How layers are parted into early, middle and late."""
    dominance: Literal["early", "middle", "late", "all"] | int = "late"
    """The layers whose attention gives a token's dominance: a segment of them, or how many of the last."""
    masking: Masking = field(default_factory=Masking)
    """How images are masked for perception."""
    estimator: Literal["k3", "kl", "js"] = "k3"
    """How perception is estimated: from the sampled token, or from the whole vocabulary."""
    balance_ratio: float = 2.0
    """R of the logged balance, see `attention_metrics`; it decides nothing else."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """B completions that were sampled, on this process."""

    prompts: list[Any]
    """Texts, or conversations that end where the completion begins."""
    images: list[list[Any]]
    """PIL images of each prompt in the order in which it shows them."""
    completion_ids: list[list[int]]
    """Ids, the end-of-sequence token included."""
    prompt_ids: list[str]
    """Which prompt each completion answers."""
    samples: list[int]
    """0-based index of each completion in its group."""
    step: int
    """Optimiser step, from 1."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Signals of the completions on this process; None where nothing asked for one."""

    has_image_B: Bool[Tensor, "batch"]
    """Whether the prompt shows an image."""
    entropy_BT: Float[Tensor, "batch time"] | None = None
    """Nats."""
    perception_BT: Float[Tensor, "batch time"] | None = None
    """Nats; 0 without an image."""
    draws_BT: Float[Tensor, "batch time"] | None = None
    """Uniform in [0, 1)."""
    attention: AttentionReading | None = None
    """What was read off the attention."""
    inputs: ModelInputs | None = None
    """What the model took in; None where it had no pass to make."""
    segments: Int[Tensor, "batch keys"] | None = None
    """The segment of each key; None where attention was not measured."""


ImageAttention = tuple[list[float], list[int] | None]
"""Attention mass per image token, and rows and columns in which the tokens lie, where that is known."""


class Measurer:
    """Measures the signals that are needed."""

    def __init__(self, processor: Processor, plan: SignalPlan, needed: frozenset[str], how: How, seed: int) -> None:
        """
        Args:
            processor: the model's.
            plan: how to measure.
            needed: signals that the credit parts go by.
            how: temperature and batch size of the passes; the plan's estimator decides its divergence.
            seed: the run's.
        """
        self.processor = processor
        self.plan = plan
        self.needed = needed | plan.also
        self.how = replace(how, divergence=None if plan.estimator == "k3" else plan.estimator)
        self.seed = seed

    def __call__(self, model: Model, sampled: Sampled) -> Measured:
        """The signals of a batch; the model's mode and all random state are left as they were."""
        shown = sampled.images
        device = model.device
        measured = Measured(has_image_B=torch.tensor([bool(each) for each in shown], device=device))
        if "draws" in self.needed:
            length = max(len(ids) for ids in sampled.completion_ids)
            drawn = draws(self.seed, sampled.step, sampled.prompt_ids, sampled.samples, length)
            measured = replace(measured, draws_BT=drawn.to(device))
        wanted = self._wanted(sees=any(shown))
        if not wanted:
            return measured
        ids, mask = _padded(sampled.completion_ids, self.processor, device)
        inputs = model_inputs(self.processor, sampled.prompts, shown, ids, mask)
        segments = segment_ids(inputs, self.processor, model.config) if "dominance" in wanted else None
        masked = self._masked(inputs, sampled) if "perception" in wanted else None
        how = self.how if masked else replace(self.how, divergence=None)
        scores = teacher_forced(model, inputs, how, segment_ids=segments, masked_inputs=masked)
        return replace(
            measured,
            entropy_BT=scores.entropy_BT if "entropy" in wanted else None,
            perception_BT=_perception(scores) if "perception" in wanted else None,
            attention=self._reading(scores, segments),
            inputs=inputs,
            segments=segments,
        )

    def image_attention(self, model: Model, measured: Measured, count: int) -> Sequence[ImageAttention | None] | None:
        """Attention mass of the first completions on each image token, by a pass of their own; None if not measured.

        It is the mean over a completion's tokens and the late layers, with the grid in which the image tokens lie.
        """
        inputs, segments = measured.inputs, measured.segments
        if inputs is None or segments is None:
            return None
        rows = range(count)
        keys = vision_keys(segments, rows)
        if not bool((keys >= 0).any()):
            return [None] * count
        late = layer_segments(model.config.get_text_config().num_hidden_layers, self.plan.layers)["late"]
        batch = inputs.batch(rows, model.device)
        mass = attention_mass(model, batch, keys, inputs.completion_length, list(late)).mean(dim=0).sum(dim=1)
        tokens = batch["attention_mask"][:, -inputs.completion_length :].sum(dim=1)
        found: list[ImageAttention | None] = []
        for row in rows:
            of_image = (mass[row] / tokens[row])[: int(keys[row].max()) + 1].tolist()
            grid = vision_grid(inputs, row, segments)
            found.append((of_image, None if grid is None else list(grid)) if of_image else None)
        return found

    def _wanted(self, *, sees: bool) -> frozenset[str]:
        """The signals that take a pass of the model; without any image in the batch those of the image take none."""
        wanted = self.needed | ({"dominance"} if self.plan.attention else set())
        return wanted & ({"entropy", "perception", "dominance"} if sees else {"entropy"})

    def _masked(self, inputs: ModelInputs, sampled: Sampled) -> ModelInputs:
        of_completions = zip(sampled.prompt_ids, sampled.samples, strict=True)
        generators = [generator(self.seed, sampled.step, *each, "masked image") for each in of_completions]
        return masked_inputs(self.processor, inputs, sampled.images, generators, self.plan.masking)

    def _reading(self, scores: Scores, segments: Tensor | None) -> AttentionReading | None:
        if scores.attention_mass is None or segments is None:
            return None
        plan = self.plan
        return read_attention(scores.attention_mass, segments, scheme=plan.layers, dominance=plan.dominance)


def _perception(scores: Scores) -> Float[Tensor, "batch time"]:
    if scores.divergence_BT is not None:
        return scores.divergence_BT
    assert scores.masked_per_token_logps is not None  # asked for
    return perception(scores.per_token_logps, scores.masked_per_token_logps)


def _padded(completion_ids: list[list[int]], processor: Processor, device: Any) -> tuple[Tensor, Tensor]:
    """Ids padded on the right, and the mask of the completions, both (B, T)."""
    pad: Any = tokenizer_of(processor).pad_token_id
    rows = [torch.tensor(ids) for ids in completion_ids]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return ids.to(device), mask.to(device)
