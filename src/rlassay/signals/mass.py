"""How much attention some queries pay to each segment of the keys: the pure part."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Scores held at a time. On a CPU a block stays in its cache; a GPU wants fewer and larger ones.
_SCORES_ON_CPU = 2**19
_SCORES_ON_GPU = 2**24


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How a layer makes scores of queries and keys, beyond the mask."""

    scaling: float
    """Factor of the dot products."""
    softcap: float | None = None
    """Bound c of scores s, which become c tanh(s / c); None leaves them as they are."""
    sinks: Float[Tensor, "heads"] | None = None
    """Learned score per head that competes with the keys, and takes mass to no key."""


def segment_mass(
    query: Float[Tensor, "batch heads rows width"],
    key: Float[Tensor, "batch kv_heads keys width"],
    mask: Bool[Tensor, "#batch #heads rows keys"] | Float[Tensor, "#batch #heads rows keys"],
    indicator: Float[Tensor, "batch keys segments"],
    scoring: Scoring,
) -> Float[Tensor, "batch rows segments"]:
    """Attention mass of each row on each segment, mean over heads: `mean_h softmax(q_h k_h') indicator`.

    Exact, and computed in blocks of rows, so that memory grows with the number of keys only.

    Args:
        query: of the rows wanted; `heads` is a multiple of `kv_heads`, whose keys neighbouring heads share.
        key: of every position.
        mask: True where a row sees a key, or what is added to the scores.
        indicator: 1 where a key belongs to a segment.
        scoring: the layer's own way.

    A row that sees no key is NaN. The mass of a row over all segments is 1 if each visible key is in one segment and
    there are no sinks.
    """
    batch, heads, rows, _ = query.shape
    at_once = _SCORES_ON_CPU if query.device.type == "cpu" else _SCORES_ON_GPU
    per_row = heads * key.shape[2]
    num_rows = max(1, min(rows, at_once // per_row))
    num_samples = max(1, at_once // (per_row * num_rows))
    mask = mask.expand(batch, -1, -1, -1)
    mass = indicator.new_empty((batch, rows, indicator.shape[2]))
    for first in range(0, batch, num_samples):
        some = slice(first, first + num_samples)
        for start in range(0, rows, num_rows):
            block = slice(start, start + num_rows)
            probabilities = _probabilities(query[some, :, block], key[some], mask[some, :, block], scoring)
            mass[some, block] = probabilities.mean(dim=1) @ indicator[some]
    return mass


def _probabilities(
    query: Float[Tensor, "batch heads rows width"],
    key: Float[Tensor, "batch kv_heads keys width"],
    mask: Bool[Tensor, "batch #heads rows keys"] | Float[Tensor, "batch #heads rows keys"],
    scoring: Scoring,
) -> Float[Tensor, "batch heads rows keys"]:
    (batch, heads, rows, width), (_, kv_heads, keys, _) = query.shape, key.shape
    # Heads that share keys become rows of one matrix product, so that no key is copied.
    scores = torch.baddbmm(
        query.new_zeros(()),
        query.reshape(batch * kv_heads, -1, width),
        key.reshape(batch * kv_heads, keys, width).transpose(1, 2),
        beta=0,
        alpha=scoring.scaling,
    )
    scores = scores.view(batch, heads, rows, keys).float()
    if scoring.softcap is not None:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    scores = scores.masked_fill_(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    if scoring.sinks is None:
        return scores.softmax(dim=-1)
    sinks = scoring.sinks.float().view(1, heads, 1, 1).expand(batch, heads, rows, 1)
    return torch.cat([scores, sinks], dim=-1).softmax(dim=-1)[..., :-1]
