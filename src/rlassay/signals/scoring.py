"""One teacher-forced pass over finished completions: log-probs, entropy, attention mass, and what the image matters."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlassay.models.hub import Model
from rlassay.signals.attention import Recording, recorded_attention
from rlassay.signals.inputs import ModelInputs
from rlassay.signals.passes import ModelPass, can_share, decoder_config, scoring_mode, unwrapped
from rlassay.signals.segments import SEGMENTS

# MERGED FROM signals.distributions: What the logits of completion tokens say: pure functions of distributions
# over the vocabulary.


def token_logps(
    log_probs: Float[Tensor, "batch time vocabulary"], ids: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Log-probability of each sampled token, nats."""
    return log_probs.gather(2, ids[..., None]).squeeze(2)


def entropy(log_probs: Float[Tensor, "batch time vocabulary"]) -> Float[Tensor, "batch time"]:
    """Entropy of each distribution, `-sum p ln p`, nats."""
    return torch.special.entr(log_probs.exp()).sum(dim=2)


def kl(
    log_p: Float[Tensor, "batch time vocabulary"], log_q: Float[Tensor, "batch time vocabulary"]
) -> Float[Tensor, "batch time"]:
    """Kullback-Leibler divergence `sum p (ln p - ln q)`, nats; infinite where q excludes what p allows.

    Source: VPPO ("Spotlight on Token Perception for Multimodal RL", eq. 3), with q under a masked image.
    """
    return torch.where(log_p == -math.inf, 0.0, log_p.exp() * (log_p - log_q)).sum(dim=2)


def js(
    log_p: Float[Tensor, "batch time vocabulary"], log_q: Float[Tensor, "batch time vocabulary"]
) -> Float[Tensor, "batch time"]:
    """Jensen-Shannon divergence `(KL(p, m) + KL(q, m)) / 2` with `m = (p + q) / 2`: symmetric, at most ln 2 nats."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (kl(log_p, log_m) + kl(log_q, log_m)) / 2


DIVERGENCES = {"kl": kl, "js": js}


# MERGED FROM signals.scoring: One teacher-forced pass over finished completions: log-probs, entropy, attention
# mass, and what the image matters.

_LOGITS_AT_ONCE = 2**24
"""Numbers in a piece of logits: 64 MiB in single precision, a few times over."""


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """How to score completions."""

    temperature: float = 1.0
    """Sampling temperature, which divides the logits."""
    batch_size: int | None = None
    """Completions per pass; None takes all at once. It changes nothing but time and memory."""
    divergence: Literal["kl", "js"] | None = None
    """Exact divergence between the distributions with the image and with the masked one; None measures none."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What the passes measured; 0 wherever a completion has no token."""

    per_token_logps: Float[Tensor, "batch time"]
    """Log-probability of each completion token, nats."""
    entropy_BT: Float[Tensor, "batch time"]
    """Entropy of the distribution that each token was drawn from, nats."""
    attention_mass: Float[Tensor, "layers batch time segments"] | None
    """Attention mass per layer and segment of `SEGMENTS`, mean over heads; None if not asked for."""
    masked_per_token_logps: Float[Tensor, "batch time"] | None
    """Log-probabilities of the same tokens with masked images, nats; None if not asked for."""
    divergence_BT: Float[Tensor, "batch time"] | None
    """Divergence of the two distributions, nats; None if not asked for."""


def teacher_forced(
    model: Model,
    inputs: ModelInputs,
    how: ScoringConfig,
    *,
    segment_ids: Int[Tensor, "batch keys"] | None = None,
    masked_inputs: ModelInputs | None = None,
) -> Scores:
    """Score completions in evaluation mode without gradients: one pass, and a second one if images are masked.

    A prompt that several completions of a batch share is read once, and they go on from its keys and values, if the
    model's layers keep all of these (see `can_share`).

    Args:
        model: a causal LM or a vision-language model, with or without PEFT adapters; its mode is restored, and no
            random number is drawn.
        inputs: prompts and completions; see `model_inputs`.
        how: temperature, batch size, divergence.
        segment_ids: (B, P+C), what `segment_ids` returns; with it, attention mass is recorded in the same pass.
        masked_inputs: the same prompts and completions with masked images; samples without an image are not passed
            again: their log-probs are the same and their divergence is 0.

    Errors: ValueError if a divergence is wanted without masked inputs; see also `attention_mass`.
    """
    if how.divergence is not None and masked_inputs is None:
        raise ValueError(f"divergence: got {how.divergence!r} without masked_inputs, expected both or neither")
    size = len(inputs)
    step = how.batch_size or size
    parts = []
    with scoring_mode(model):
        for first in range(0, size, step):
            rows = list(range(first, min(first + step, size)))
            some_ids = None if segment_ids is None else segment_ids[rows]
            parts.append(_scored(model, inputs, rows, how, some_ids, masked_inputs))
    return Scores(
        per_token_logps=torch.cat([part.per_token_logps for part in parts]),
        entropy_BT=torch.cat([part.entropy_BT for part in parts]),
        attention_mass=_joined([part.attention_mass for part in parts], dim=1),
        masked_per_token_logps=_joined([part.masked_per_token_logps for part in parts]),
        divergence_BT=_joined([part.divergence_BT for part in parts]),
    )


def _scored(
    model: Model,
    inputs: ModelInputs,
    rows: list[int],
    how: ScoringConfig,
    segment_ids: Tensor | None,
    masked_inputs: ModelInputs | None,
) -> Scores:
    batch = inputs.batch(rows, model.device)
    length = inputs.completion_length
    shared = inputs.shared_prompts(rows, model.device)
    shared = shared if can_share(unwrapped(model).base_model, decoder_config(model), shared) else None
    recording = (
        None if segment_ids is None else Recording(segment_ids, length, num_segments=len(SEGMENTS), shared=shared)
    )
    with nullcontext() if recording is None else recorded_attention(model, recording):
        plain = ModelPass(model, batch, length, shared)
    shown = [index for index, row in enumerate(rows) if inputs.has_image[row]]
    masked = None
    if masked_inputs is not None and shown:
        masked = ModelPass(model, masked_inputs.batch([rows[index] for index in shown], model.device), length)
    logps, entropy_BT, masked_logps, divergence_BT = _measured(plain, masked, shown, batch["input_ids"], how)
    is_token = batch["attention_mask"][:, -length:].bool()
    asked = masked_inputs is not None
    return Scores(
        per_token_logps=torch.where(is_token, logps, 0.0),
        entropy_BT=torch.where(is_token, entropy_BT, 0.0),
        attention_mass=None if recording is None else recording.mass(batch["attention_mask"]),
        masked_per_token_logps=torch.where(is_token, masked_logps, 0.0) if asked else None,
        divergence_BT=torch.where(is_token, divergence_BT, 0.0) if how.divergence else None,
    )


def _measured(
    plain: ModelPass, masked: ModelPass | None, shown: list[int], input_ids: Tensor, how: ScoringConfig
) -> tuple[Tensor, ...]:
    """Log-probs, entropies, log-probs with masked images and divergences, each (batch, time), piece after piece."""
    pieces: list[tuple[Tensor, ...]] = []
    for tokens, logits in _pieces(plain):
        ids = input_ids[:, -plain.length :][:, tokens]
        log_probs = (logits.float() / how.temperature).log_softmax(dim=2)
        logps = token_logps(log_probs, ids)
        masked_logps, divergence_BT = logps.clone(), torch.zeros_like(logps)
        if masked is not None:
            masked_log_probs = (masked.logits(tokens).float() / how.temperature).log_softmax(dim=2)
            masked_logps[shown] = token_logps(masked_log_probs, ids[shown])
            if how.divergence is not None:
                divergence_BT[shown] = DIVERGENCES[how.divergence](log_probs[shown], masked_log_probs)
        pieces.append((logps, entropy(log_probs), masked_logps, divergence_BT))
    return tuple(torch.cat(column, dim=1) for column in zip(*pieces, strict=True))


def _pieces(plain: ModelPass) -> Iterator[tuple[slice, Tensor]]:
    per_token = plain.batch_size * plain.vocabulary
    size = max(1, _LOGITS_AT_ONCE // per_token)
    for first in range(0, plain.length, size):
        tokens = slice(first, min(first + size, plain.length))
        yield tokens, plain.logits(tokens)


def _joined(parts: list[Tensor | None], dim: int = 0) -> Tensor | None:
    measured = [part for part in parts if part is not None]
    return torch.cat(measured, dim=dim) if measured else None
