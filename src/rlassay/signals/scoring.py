"""Score completions in one teacher-forced pass: log-probs, entropy, attention mass, image sensitivity."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlassay.models.hub import Model
from rlassay.models.seq2seq import Seq2SeqPass, is_encoder_decoder, unwrapped
from rlassay.signals.attention import Recording, recorded_attention
from rlassay.signals.formulas import DIVERGENCES, entropy, token_logps
from rlassay.signals.inputs import ModelInputs
from rlassay.signals.passes import (
    ModelPass,
    SharedPrompts,
    can_share,
    decoder_config,
    scoring_mode,
    trunk_of,
)
from rlassay.signals.segments import SEGMENTS

_LOGITS_AT_ONCE = 2**24
"""Logits computed at a time. They take 64 MiB in single precision, of which a few copies are alive."""


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """How to score completions."""

    temperature: float = 1.0
    """Sampling temperature, by which the logits are divided."""
    batch_size: int | None = None
    """Completions per pass; None takes all at once. Affects only time and memory."""
    divergence: Literal["kl", "js"] | None = None
    """Exact divergence between the distributions with the image and with the masked one; None measures none."""
    skip_padding: bool = True
    """Whether position ids of a text model skip the padding, see `ModelPass`."""


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """Scores of each completion token; 0 where a completion has no token."""

    per_token_logps: Float[Tensor, "batch time"]
    """Log-probability of each completion token, nats."""
    entropy_BT: Float[Tensor, "batch time"]
    """Entropy of the distribution that each token was sampled from, nats."""
    attention_mass: Float[Tensor, "layers batch time segments"] | None
    """Attention mass per layer and segment of `SEGMENTS`, mean over heads; None if not requested."""
    masked_per_token_logps: Float[Tensor, "batch time"] | None
    """Log-probabilities of the same tokens with masked images, nats; None if not requested."""
    divergence_BT: Float[Tensor, "batch time"] | None
    """Divergence of the two distributions, nats; None if not requested."""


def teacher_forced(
    model: Model,
    inputs: ModelInputs,
    config: ScoringConfig,
    *,
    segment_ids: Int[Tensor, "batch keys"] | None = None,
    masked_inputs: ModelInputs | None = None,
) -> TokenScores:
    """Score completions in evaluation mode without gradients.

    It takes one pass, plus a second one with masked images.

    A prompt that several completions of a batch share is processed once and its keys and values are reused, if the
    model's layers keep all of them (see `can_share`).

    Args:
        model: a causal LM or a vision-language model, with or without PEFT adapters; its mode is restored, and no
            random number is drawn.
        inputs: prompts and completions; see `model_inputs`.
        config: temperature, batch size, divergence.
        segment_ids: (B, P+C), the result of `segment_ids`; if given, the same pass records attention mass.
        masked_inputs: the same with masked images; samples without an image keep their log-probs and have divergence 0.

    Errors: ValueError if a divergence is requested without masked inputs; see also `attention_mass`.
    """
    if config.divergence is not None and masked_inputs is None:
        raise ValueError(f"divergence: got {config.divergence!r} without masked_inputs, expected both or neither")
    size = len(inputs)
    step = config.batch_size or size
    parts: list[TokenScores] = []
    with scoring_mode(model):
        for first in range(0, size, step):
            rows = list(range(first, min(first + step, size)))
            some_ids = None if segment_ids is None else segment_ids[rows]
            parts.append(_score_rows(model, inputs, rows, config, some_ids, masked_inputs))
    return TokenScores(
        per_token_logps=torch.cat([part.per_token_logps for part in parts]),
        entropy_BT=torch.cat([part.entropy_BT for part in parts]),
        attention_mass=_concatenated([part.attention_mass for part in parts], dim=1),
        masked_per_token_logps=_concatenated([part.masked_per_token_logps for part in parts]),
        divergence_BT=_concatenated([part.divergence_BT for part in parts]),
    )


def _score_rows(
    model: Model,
    inputs: ModelInputs,
    rows: list[int],
    config: ScoringConfig,
    segment_ids: Tensor | None,
    masked_inputs: ModelInputs | None,
) -> TokenScores:
    batch = inputs.batch(rows, model.device)
    length = inputs.completion_length
    if is_encoder_decoder(model):
        return _score_decoder(model, batch, length, config, segment_ids, masked_inputs)
    shared = _shared(model, inputs, rows)
    recording = (
        None if segment_ids is None else Recording(segment_ids, length, num_segments=len(SEGMENTS), shared=shared)
    )
    with nullcontext() if recording is None else recorded_attention(model, recording):
        plain = ModelPass(model, batch, length, shared, skip_padding=config.skip_padding)
    with_image = [index for index, row in enumerate(rows) if inputs.has_image[row]]
    masked = None
    if masked_inputs is not None and with_image:
        some = [rows[index] for index in with_image]
        of_masked = masked_inputs.batch(some, model.device)
        masked = ModelPass(
            model, of_masked, length, _shared(model, masked_inputs, some), skip_padding=config.skip_padding
        )
    logps, entropy_BT, masked_logps, divergence_BT = _token_values(
        plain, masked, with_image, batch["input_ids"], config
    )
    is_token = batch["attention_mask"][:, -length:].bool()
    has_masked = masked_inputs is not None
    return TokenScores(
        per_token_logps=torch.where(is_token, logps, 0.0),
        entropy_BT=torch.where(is_token, entropy_BT, 0.0),
        attention_mass=None if recording is None else recording.mass(batch["attention_mask"]),
        masked_per_token_logps=torch.where(is_token, masked_logps, 0.0) if has_masked else None,
        divergence_BT=torch.where(is_token, divergence_BT, 0.0) if config.divergence else None,
    )


def _shared(model: Model, inputs: ModelInputs, rows: list[int]) -> SharedPrompts | None:
    """The distinct prompts of some samples, if the model can reuse their keys and values."""
    shared, trunk = inputs.shared_prompts(rows, model.device), trunk_of(model)
    shares = trunk is unwrapped(model).base_model and can_share(trunk, decoder_config(model), shared)
    return shared if shares else None


def _score_decoder(
    model: Model,
    batch: dict[str, Tensor],
    length: int,
    config: ScoringConfig,
    segment_ids: Tensor | None,
    masked_inputs: ModelInputs | None,
) -> TokenScores:
    """Scores of an encoder-decoder, which sees no image and whose encoder alone reads the prompt."""
    if segment_ids is not None or masked_inputs is not None:
        raise ValueError("attention and image sensitivity: not available for encoder-decoders, got one; leave them out")
    plain = Seq2SeqPass(model, batch["input_ids"], batch["attention_mask"], length)
    logps, entropy_BT, *_ = _token_values(plain, None, [], batch["input_ids"], config)
    is_token = batch["attention_mask"][:, -length:].bool()
    return TokenScores(
        per_token_logps=torch.where(is_token, logps, 0.0),
        entropy_BT=torch.where(is_token, entropy_BT, 0.0),
        attention_mass=None,
        masked_per_token_logps=None,
        divergence_BT=None,
    )


def _token_values(
    plain: ModelPass | Seq2SeqPass,
    masked: ModelPass | None,
    with_image: list[int],
    input_ids: Tensor,
    config: ScoringConfig,
) -> tuple[Tensor, ...]:
    """Log-probs, entropies, log-probs with masked images and divergences, each (batch, time), computed in pieces."""
    pieces: list[tuple[Tensor, ...]] = []
    for tokens, logits in _pieces(plain):
        ids = input_ids[:, -plain.length :][:, tokens]
        log_probs = (logits.float() / config.temperature).log_softmax(dim=2)
        logps = token_logps(log_probs, ids)
        masked_logps, divergence_BT = logps.clone(), torch.zeros_like(logps)
        if masked is not None:
            masked_log_probs = (masked.logits(tokens).float() / config.temperature).log_softmax(dim=2)
            masked_logps[with_image] = token_logps(masked_log_probs, ids[with_image])
            if config.divergence is not None:
                divergence_BT[with_image] = DIVERGENCES[config.divergence](log_probs[with_image], masked_log_probs)
        pieces.append((logps, entropy(log_probs), masked_logps, divergence_BT))
    return tuple(torch.cat(column, dim=1) for column in zip(*pieces, strict=True))


def _pieces(plain: ModelPass | Seq2SeqPass) -> Iterator[tuple[slice, Tensor]]:
    per_token = plain.batch_size * plain.vocabulary
    size = max(1, _LOGITS_AT_ONCE // per_token)
    for first in range(0, plain.length, size):
        tokens = slice(first, min(first + size, plain.length))
        yield tokens, plain.logits(tokens)


def _concatenated(parts: list[Tensor | None], dim: int = 0) -> Tensor | None:
    measured = [part for part in parts if part is not None]
    return torch.cat(measured, dim=dim) if measured else None
