"""Signals of a generation batch: measured on finished completions, whatever engine sampled them."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlassay.credit import attention_efficiency, modality_dominance, perception
from rlassay.models import tokenizer_of
from rlassay.models.hub import Model, Processor
from rlassay.signals.attention import attention_mass
from rlassay.signals.inputs import ModelInputs, model_inputs
from rlassay.signals.masking import Masking, masked_inputs
from rlassay.signals.scoring import Scores, ScoringConfig, teacher_forced
from rlassay.signals.segments import LAYER_SEGMENTS, SEGMENTS, layer_segments, segment_ids, vision_grid

# MERGED FROM signals.readings: What attention mass says of each completion: dominance and efficiency of text
# and image, by layers. Pure.

TEXT, VISION = SEGMENTS.index("text"), SEGMENTS.index("vision")


@dataclass(frozen=True, kw_only=True)
class AttentionReading:
    """What was read off the attention of B completions."""

    dominance_BT: Float[Tensor, "batch time"]
    """Modality dominance of the row that predicted each token; NaN without an image or without a token."""
    per_completion: dict[str, Float[Tensor, "batch"]]
    """`modality_dominance/<layers>`, `attention_efficiency_text/<layers>` and `attention_efficiency_vision/<layers>` of
    all rows together, for each of the layer segments that the model has; `text_tokens` and `vision_tokens`, how many
    prompt tokens these rest on. NaN without an image."""


def read_attention(
    mass: Float[Tensor, "layers batch time segments"],
    segments: Int[Tensor, "batch keys"],
    *,
    scheme: Literal["thirds", "paper"],
    dominance: str | int,
) -> AttentionReading:
    """Readings of attention mass, whose layers are averaged before ratios are formed.

    Args:
        mass: per layer, completion, row and key segment; 0 in rows without a token.
        segments: (B, P+C), the segment of each key.
        scheme: how layers are parted.
        dominance: layers of `dominance_BT`: a layer segment, or how many of the last.

    Errors: ValueError when the model has too few layers for the segment `dominance`.

    Source: "When Language Overrules" (arXiv 2508.10552), eqs. 1-4; mass before ratio as in JuncyLu/trl_DAPO.
    """
    text_tokens, vision_tokens = ((segments == each).sum(dim=1) for each in (TEXT, VISION))
    ranges = layer_segments(len(mass), scheme)
    chosen = range(max(0, len(mass) - dominance), len(mass)) if isinstance(dominance, int) else ranges[dominance]
    if not chosen:
        raise ValueError(f"signals.attention.dominance: {dominance!r} has no layer in a model of {len(mass)}")
    rows = mass[list(chosen)].mean(dim=0)
    counts = (text_tokens[:, None], vision_tokens[:, None])
    per_completion = {"text_tokens": text_tokens.float(), "vision_tokens": vision_tokens.float()}
    for name, layers in ranges.items():
        if layers:
            total = mass[list(layers)].mean(dim=0).sum(dim=1)
            text, vision = total[:, TEXT], total[:, VISION]
            of_text, of_vision = (text, vision, text_tokens, vision_tokens), (vision, text, vision_tokens, text_tokens)
            per_completion[f"modality_dominance/{name}"] = modality_dominance(*of_text)
            efficiencies = {"text": attention_efficiency(*of_text), "vision": attention_efficiency(*of_vision)}
            for kind, values in efficiencies.items():
                defined = torch.where(vision_tokens > 0, values, math.nan)  # without an image text has its fair share
                per_completion[f"attention_efficiency_{kind}/{name}"] = defined
    return AttentionReading(
        dominance_BT=modality_dominance(rows[..., TEXT], rows[..., VISION], *counts), per_completion=per_completion
    )


def completion_signals(measured: "SignalBatch") -> list[dict[str, float]]:
    """Signals of each completion by name, for rewards; undefined ones (NaN or infinite) are left out."""
    if measured.attention is None:
        return [{} for _ in measured.has_image_B]
    columns = {name: values.tolist() for name, values in measured.attention.per_completion.items()}
    rows = zip(*columns.values(), strict=True)
    return [{name: value for name, value in zip(columns, row, strict=True) if math.isfinite(value)} for row in rows]


def columns_of(readings: Sequence[Mapping[str, float]]) -> dict[str, Float[Tensor, "batch"]]:
    """Readings of completions as one tensor for each name; NaN where one is not defined."""
    names = sorted({name for each in readings for name in each})
    return {name: torch.tensor([each.get(name, math.nan) for each in readings]) for name in names}


def attention_metrics(columns: Mapping[str, Float[Tensor, "batch"]], ratio: float) -> dict[str, float]:
    """What is logged of readings: means over the completions for which they are defined.

    For each layer segment `attention/<layers>/` with `mdi`, `aei_text`, `aei_vision`, `text_ratio` MDI / (1 + MDI),
    `vision_ratio` 1 / (1 + MDI), `mdi_balance` clip(1 - |ln MDI| / ln R, 0, 1) and `mdi_penalty` 1 - balance; and how
    many tokens they rest on, `attention/text_tokens` and `attention/vision_tokens`.

    Args:
        columns: readings of the whole batch.
        ratio: R.

    Source: the metrics of JuncyLu/trl_DAPO, branch trl.
    """
    found = {f"attention/{name}": columns[name] for name in ("text_tokens", "vision_tokens") if name in columns}
    for layers in LAYER_SEGMENTS:
        if f"modality_dominance/{layers}" in columns:
            dominance = columns[f"modality_dominance/{layers}"]
            balance = (1 - dominance.log().abs() / math.log(ratio)).clamp(0, 1)
            values = {
                "mdi": dominance,
                "aei_text": columns[f"attention_efficiency_text/{layers}"],
                "aei_vision": columns[f"attention_efficiency_vision/{layers}"],
                "text_ratio": dominance / (1 + dominance),
                "vision_ratio": 1 / (1 + dominance),
                "mdi_balance": balance,
                "mdi_penalty": 1 - balance,
            }
            found |= {f"attention/{layers}/{name}": value for name, value in values.items()}
    finite = {name: values[torch.isfinite(values)] for name, values in found.items()}
    return {name: values.mean().item() for name, values in finite.items() if len(values)}


def vision_keys(segments: Int[Tensor, "batch keys"], rows: Sequence[int]) -> Int[Tensor, "some keys"]:
    """For each of some samples, its image tokens numbered from 0; -1 elsewhere."""
    is_vision = segments[list(rows)] == VISION
    return torch.where(is_vision, is_vision.long().cumsum(dim=1) - 1, -1)


# MERGED FROM signals.randomness: Random numbers that belong to a completion, whatever batch or process it is
# in.


def generator(seed: int, step: int, prompt_id: str, sample: int, purpose: str) -> np.random.Generator:
    """Random numbers of one completion for one purpose; a counter-based generator keyed by a digest of all of these.

    Args:
        seed: the run's.
        step: training step that samples the completion.
        prompt_id: of its prompt.
        sample: its index among the completions of that prompt.
        purpose: so that several uses do not draw the same numbers.
    """
    seed_text = "\0".join([str(seed), str(step), prompt_id, str(sample), purpose])
    key = int.from_bytes(hashlib.blake2b(seed_text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def draws(
    seed: int, step: int, prompt_ids: Sequence[str], samples: Sequence[int], length: int
) -> Float[Tensor, "batch time"]:
    """One number in [0, 1) per token; the first ones of a completion do not depend on `length`.

    Args:
        seed: the run's.
        step: training step that samples the completions.
        prompt_ids: one per completion.
        samples: index of each completion among those of its prompt.
        length: T.
    """
    rows = [
        generator(seed, step, prompt_id, sample, "draws").random(length, dtype=np.float32)
        for prompt_id, sample in zip(prompt_ids, samples, strict=True)
    ]
    return torch.from_numpy(np.stack(rows))


# MERGED FROM signals.measuring: Signals of a generation batch: measured on finished completions, whatever
# engine sampled them.


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
class RolloutBatch:
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
class SignalBatch:
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


class SignalComputer:
    """Measures the signals that are needed."""

    def __init__(
        self, processor: Processor, plan: SignalPlan, needed: frozenset[str], how: ScoringConfig, seed: int
    ) -> None:
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

    def __call__(self, model: Model, sampled: RolloutBatch) -> SignalBatch:
        """The signals of a batch; the model's mode and all random state are left as they were."""
        shown = sampled.images
        device = model.device
        measured = SignalBatch(has_image_B=torch.tensor([bool(each) for each in shown], device=device))
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

    def image_attention(
        self, model: Model, measured: SignalBatch, count: int
    ) -> Sequence[ImageAttention | None] | None:
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

    def _masked(self, inputs: ModelInputs, sampled: RolloutBatch) -> ModelInputs:
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
