"""Signals of a generation batch: measured on finished completions of any engine.

`SignalComputer` runs the forward passes that the needed signals require. Attention mass is summarised per token and per
completion; the per-completion values go to rewards (`completion_signals`) and logs (`attention_metrics`). Random masks
and draws are seeded by completion (`generator`), so that they do not depend on batch or process.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rlassay.models.hub import Model, Processor
from rlassay.models.policy import tokenizer_of
from rlassay.models.seq2seq import is_encoder_decoder
from rlassay.names import unknown
from rlassay.signals.attention import attention_mass
from rlassay.signals.document import DocumentAttention, document_attention
from rlassay.signals.formulas import (
    DIVERGENCES,
    IMAGE_SIGNALS,
    SIGNALS,
    attention_efficiency,
    modality_dominance,
    perception,
)
from rlassay.signals.inputs import ModelInputs, SampledPrompts, model_inputs, sampled_inputs, with_system_blocks
from rlassay.signals.masking import Masking, masked_inputs
from rlassay.signals.scoring import ScoringConfig, TokenScores, teacher_forced
from rlassay.signals.segments import LAYER_SEGMENTS, SEGMENTS, layer_segments, segment_ids, vision_grid, vision_keys

TEXT, VISION = SEGMENTS.index("text"), SEGMENTS.index("vision")

ImageAttention = tuple[list[float], list[int] | None]
"""Attention mass per image token, and the grid of the tokens, if known; see `vision_grid`."""


@dataclass(frozen=True, kw_only=True)
class SignalPlan:
    """Signals to measure, and how; only those that rewards and credit use affect training."""

    also: Set[str] = frozenset()
    """Signals to measure in addition to those that the credit parts need: names of `SIGNALS`."""
    attention: bool = False
    """Whether to measure attention for rewards and logs, even if no credit part needs it. It is attention to text and
    images, or to an encoder-decoder's document."""
    layers: Literal["thirds", "paper"] = "thirds"
    """How layers are divided into early, middle and late, see `layer_segments`."""
    dominance: Literal["early", "middle", "late", "all"] | int = "late"
    """Layers whose attention gives a token's dominance: a segment, or a number of last layers."""
    masking: Masking = field(default_factory=Masking)
    """How images are masked for perception."""
    mask_per: Literal["completion", "prompt"] = "completion"
    """Whether a prompt's completions each have their own mask, or share one per step."""
    estimator: Literal["k3", "kl", "js"] = "k3"
    """How perception is estimated: `k3` from the sampled token; `kl` or `js` from the whole vocabulary."""
    balance_ratio: float = 2.0
    """R of the logged balance, see `attention_metrics`; affects only the log."""

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown name or a value out of range."""
        for name in self.also:
            _check_name("also", name, SIGNALS)
        _check_name("layers", self.layers, ("thirds", "paper"))
        _check_name("mask_per", self.mask_per, ("completion", "prompt"))
        _check_name("estimator", self.estimator, ("k3", *DIVERGENCES))
        if not isinstance(self.dominance, int):
            _check_name("dominance", self.dominance, LAYER_SEGMENTS)
        elif self.dominance < 1:
            raise ValueError(f"SignalPlan.dominance: got {self.dominance}, expected at least 1 layer")
        if not self.balance_ratio > 1:
            raise ValueError(f"SignalPlan.balance_ratio: got {self.balance_ratio}, expected a number above 1")


@dataclass(frozen=True, kw_only=True)
class RolloutBatch:
    """B sampled completions on this process."""

    prompts: list[Any]
    """Texts, or conversations that end where the completion begins."""
    images: list[list[Any]]
    """PIL images of each prompt, in its order, and its clips."""
    completion_ids: list[list[int]]
    """Token ids, including the end-of-sequence token."""
    prompt_ids: list[str]
    """`prompt_id` of each completion's prompt."""
    samples: list[int]
    """0-based index of each completion in its group."""
    step: int
    """Optimiser step, from 1."""
    sampled: SampledPrompts | None = None
    """The prompts' tokens where they are known; None renders and tokenizes the prompts."""
    own_tokens: list[list[int]] | None = None
    """1 for completion tokens that the model sampled, 0 for those of tools or environments; None = all 1."""


@dataclass(frozen=True, kw_only=True)
class AttentionSummary:
    """Attention of B completions to text and image, per token and per completion."""

    dominance_BT: Float[Tensor, "batch time"]
    """Modality dominance of the position that predicted each token; NaN without an image or a token."""
    per_completion: dict[str, Float[Tensor, "batch"]]
    """Per-completion metrics, NaN without an image. For each layer segment that the model has, over all of a
    completion's tokens: `modality_dominance/<layers>`, `attention_efficiency_text/<layers>` and
    `attention_efficiency_vision/<layers>`. And `text_tokens` and `vision_tokens`, the numbers of prompt tokens."""


@dataclass(frozen=True, kw_only=True)
class SignalBatch:
    """Signals of the completions on this process; None where not measured."""

    has_image_B: Bool[Tensor, "batch"]
    """Whether the prompt has an image or a clip."""
    entropy_BT: Float[Tensor, "batch time"] | None = None
    """Entropy, nats."""
    logps_BT: Float[Tensor, "batch time"] | None = None
    """Log-probability of each sampled token, nats."""
    perception_BT: Float[Tensor, "batch time"] | None = None
    """Perception, nats; 0 without an image."""
    draws_BT: Float[Tensor, "batch time"] | None = None
    """Uniform random draws in [0, 1)."""
    attention: AttentionSummary | None = None
    """Attention to text and image."""
    document: DocumentAttention | None = None
    """Attention of an encoder-decoder to its document."""
    inputs: ModelInputs | None = None
    """Model inputs of the scoring pass; None if no signal needed one."""
    segments: Int[Tensor, "batch keys"] | None = None
    """Segment of each key; None where attention was not measured."""


class SignalComputer:
    """Measures the signals that credit parts, rewards and logs need."""

    def __init__(
        self, processor: Processor, plan: SignalPlan, needed: frozenset[str], scoring: ScoringConfig, seed: int
    ) -> None:
        """
        Args:
            processor: the model's processor.
            plan: which additional signals to measure, and how.
            needed: signals that the credit parts read.
            scoring: temperature and batch size of the passes; the plan's estimator sets its divergence.
            seed: the run's seed.
        """
        self.processor = processor
        self.plan = plan
        self.needed = needed | plan.also
        self.scoring = replace(scoring, divergence=None if plan.estimator == "k3" else plan.estimator)
        self.seed = seed

    def __call__(self, model: Model, batch: RolloutBatch) -> SignalBatch:
        """Signals of a batch; the model's mode and all random state are left unchanged."""
        device = model.device
        signals = SignalBatch(has_image_B=torch.tensor([bool(each) for each in batch.images], device=device))
        if "draws" in self.needed:
            length = max(len(ids) for ids in batch.completion_ids)
            drawn = draws(self.seed, batch.step, batch.prompt_ids, batch.samples, length)
            signals = replace(signals, draws_BT=drawn.to(device))
        scored = self._scored_signals(has_images=any(batch.images))
        reads_document = self.plan.attention and is_encoder_decoder(model)
        if not scored and not reads_document:
            return signals
        inputs = self._inputs(batch, with_system="dominance" in scored, device=device)
        if reads_document:
            of_document = document_attention(model, inputs, self.processor, self.plan.layers, self.scoring.batch_size)
            signals = replace(signals, document=of_document)
        if not scored:
            return signals
        segments = segment_ids(inputs, self.processor, model.config) if "dominance" in scored else None
        masked = self._masked_inputs(inputs, batch) if "perception" in scored else None
        # On TRL's tokens the pass equals TRL's, positions included, so that the entropy is that of its loss.
        config = replace(self.scoring, skip_padding=batch.sampled is None)
        config = config if masked else replace(config, divergence=None)
        scores = teacher_forced(model, inputs, config, segment_ids=segments, masked_inputs=masked)
        return replace(
            signals,
            entropy_BT=scores.entropy_BT if "entropy" in scored else None,
            logps_BT=scores.per_token_logps if "logps" in scored else None,
            perception_BT=_perception(scores) if "perception" in scored else None,
            attention=self._attention_summary(scores, segments, batch.own_tokens),
            inputs=inputs,
            segments=segments,
        )

    def image_attention(self, model: Model, signals: SignalBatch, count: int) -> Sequence[ImageAttention | None] | None:
        """Attention mass of the first completions on each image token, in a separate pass; None if not measured.

        It is the mean over a completion's tokens and the late layers, with the grid of the image tokens.
        """
        inputs, segments = signals.inputs, signals.segments
        if inputs is None or segments is None:
            return None
        rows = range(count)
        keys = vision_keys(segments, rows)
        if not bool((keys >= 0).any()):
            return [None] * count
        config: Any = model.config
        late = layer_segments(config.get_text_config().num_hidden_layers, self.plan.layers)["late"]
        batch = inputs.batch(rows, model.device)
        mass = attention_mass(model, batch, keys, inputs.completion_length, list(late)).mean(dim=0).sum(dim=1)
        tokens = batch["attention_mask"][:, -inputs.completion_length :].sum(dim=1)
        attention: list[ImageAttention | None] = []
        for row in rows:
            of_image = floats((mass[row] / tokens[row])[: int(keys[row].max()) + 1])
            grid = vision_grid(inputs, row, segments)
            attention.append((of_image, None if grid is None else list(grid)) if of_image else None)
        return attention

    def _scored_signals(self, *, has_images: bool) -> frozenset[str]:
        """The signals to measure that require a forward pass."""
        needed = self.needed | (frozenset({"dominance"}) if self.plan.attention else frozenset[str]())
        return needed & ({"entropy", "logps"} | (IMAGE_SIGNALS if has_images else frozenset[str]()))

    def _inputs(self, batch: RolloutBatch, *, with_system: bool, device: torch.device) -> ModelInputs:
        ids, mask = _padded(batch.completion_ids, self.processor, device)
        if batch.sampled is None:
            return model_inputs(self.processor, batch.prompts, batch.images, ids, mask)
        inputs = sampled_inputs(self.processor, batch.prompts, batch.images, ids, mask, batch.sampled)
        return with_system_blocks(self.processor, inputs, batch.prompts, batch.sampled) if with_system else inputs

    def _masked_inputs(self, inputs: ModelInputs, batch: RolloutBatch) -> ModelInputs:
        # A shared mask is that of the prompt's first completion, which may be on another process.
        shares = self.plan.mask_per == "prompt"
        samples = [0] * len(batch.samples) if shares else batch.samples
        completions = zip(batch.prompt_ids, samples, strict=True)
        generators = [generator(self.seed, batch.step, *each, "masked image") for each in completions]
        masks = batch.prompt_ids if shares else None
        return masked_inputs(self.processor, inputs, batch.images, generators, self.plan.masking, masks)

    def _attention_summary(
        self, scores: TokenScores, segments: Tensor | None, own_tokens: list[list[int]] | None
    ) -> AttentionSummary | None:
        mass = scores.attention_mass
        if mass is None or segments is None:
            return None
        if own_tokens is not None:
            own = [torch.tensor(each, dtype=mass.dtype) for each in own_tokens]
            mass = mass * torch.nn.utils.rnn.pad_sequence(own, batch_first=True).to(mass.device)[..., None]
        return summarise_attention(mass, segments, scheme=self.plan.layers, dominance=self.plan.dominance)


def summarise_attention(
    mass: Float[Tensor, "layers batch time segments"],
    segments: Int[Tensor, "batch keys"],
    *,
    scheme: Literal["thirds", "paper"],
    dominance: str | int,
) -> AttentionSummary:
    """Dominance and efficiency from attention mass, averaged over layers before ratios are formed.

    Args:
        mass: attention mass; 0 in rows without a token.
        segments: (B, P+C), the segment of each key.
        scheme: how layers are divided into segments.
        dominance: layers of `dominance_BT`: a layer segment, or a number of last layers.

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
                # Without an image the formula gives text its fair share, 1; there is nothing to compare it with.
                defined = torch.where(vision_tokens > 0, values, math.nan)
                per_completion[f"attention_efficiency_{kind}/{name}"] = defined
    return AttentionSummary(
        dominance_BT=modality_dominance(rows[..., TEXT], rows[..., VISION], *counts), per_completion=per_completion
    )


def completion_signals(measured: "SignalBatch") -> list[dict[str, float]]:
    """Signals of each completion by name, for rewards; undefined ones (NaN or infinite) are left out."""
    summary = measured.attention or measured.document
    if summary is None:
        return [{} for _ in measured.has_image_B]
    columns = {name: floats(values) for name, values in summary.per_completion.items()}
    rows = zip(*columns.values(), strict=True)
    return [{name: value for name, value in zip(columns, row, strict=True) if math.isfinite(value)} for row in rows]


def columns_of(completions: Sequence[Mapping[str, float]]) -> dict[str, Float[Tensor, "batch"]]:
    """Metrics of completions as one tensor per name; NaN where one is undefined."""
    names = sorted({name for each in completions for name in each})
    return {name: torch.tensor([each.get(name, math.nan) for each in completions]) for name in names}


def attention_metrics(columns: Mapping[str, Float[Tensor, "batch"]], ratio: float) -> dict[str, float]:
    """Attention metrics to log: means over the completions where they are finite.

    For each layer segment `attention/<layers>/` with `mdi`, `aei_text`, `aei_vision`, `text_ratio` MDI / (1 + MDI),
    `vision_ratio` 1 / (1 + MDI), `mdi_balance` clip(1 - |ln MDI| / ln R, 0, 1) and `mdi_penalty` 1 - balance, or for
    encoder-decoders `attended_tokens`; and the token counts `attention/text_tokens` and `attention/vision_tokens`.

    Args:
        columns: per-completion metrics of the whole batch, see `AttentionSummary` and `DocumentAttention`.
        ratio: R.

    Source: the metrics of JuncyLu/trl_DAPO, branch trl.
    """
    logged = {f"attention/{name}": columns[name] for name in ("text_tokens", "vision_tokens") if name in columns}
    for layers in LAYER_SEGMENTS:
        if f"attended_tokens/{layers}" in columns:
            logged[f"attention/{layers}/attended_tokens"] = columns[f"attended_tokens/{layers}"]
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
            logged |= {f"attention/{layers}/{name}": value for name, value in values.items()}
    finite = {name: values[torch.isfinite(values)] for name, values in logged.items()}
    return {name: values.mean().item() for name, values in finite.items() if len(values)}


def generator(seed: int, step: int, prompt_id: str, sample: int, purpose: str) -> np.random.Generator:
    """Random numbers of one completion for one purpose: a counter-based generator keyed by their digest.

    Args:
        seed: the run's seed.
        step: training step that samples the completion.
        prompt_id: its prompt.
        sample: its index among the completions of that prompt.
        purpose: separates uses, so that no two draw the same numbers.
    """
    seed_text = "\0".join([str(seed), str(step), prompt_id, str(sample), purpose])
    key = int.from_bytes(hashlib.blake2b(seed_text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def draws(
    seed: int, step: int, prompt_ids: Sequence[str], samples: Sequence[int], length: int
) -> Float[Tensor, "batch time"]:
    """One uniform random draw in [0, 1) per token; the first ones of a completion do not depend on `length`.

    Args:
        seed: the run's seed.
        step: training step that samples the completions.
        prompt_ids: one per completion.
        samples: index of each completion among those of its prompt.
        length: T.
    """
    rows = [
        generator(seed, step, prompt_id, sample, "draws").random(length, dtype=np.float32)
        for prompt_id, sample in zip(prompt_ids, samples, strict=True)
    ]
    return torch.from_numpy(np.stack(rows))  # pyright: ignore[reportUnknownMemberType]


def _check_name(option: str, name: object, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(unknown(f"SignalPlan.{option}", name, known))


def _perception(scores: TokenScores) -> Float[Tensor, "batch time"]:
    if scores.divergence_BT is not None:
        return scores.divergence_BT
    assert scores.masked_per_token_logps is not None  # masked inputs were given
    return perception(scores.per_token_logps, scores.masked_per_token_logps)


def _padded(completion_ids: list[list[int]], processor: Processor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids padded on the right, and the mask of the completions, both (B, T)."""
    pad: Any = tokenizer_of(processor).pad_token_id
    rows = [torch.tensor(ids) for ids in completion_ids]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return ids.to(device), mask.to(device)


def floats(values: Float[Tensor, "_"]) -> list[float]:
    """The numbers of a one-dimensional tensor."""
    return cast("list[float]", values.tolist())  # pyright: ignore[reportUnknownMemberType]
