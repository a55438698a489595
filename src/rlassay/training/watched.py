"""Completions that are recorded token by token, so that people can see which words a credit pays.

They are those of the first groups of each generation batch. Runs of one seed draw the same prompts at the same step,
so that the same prompts are watched in every arm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from rlassay.credit import Credit, TokenSignals
from rlassay.signals.measuring import ImageAttention, Measured
from rlassay.training.rollouts import Rollout, WatchedCompletion

WATCHED_GROUPS = 2
"""Groups of each generation batch."""
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True, kw_only=True)
class TokenMeasures:
    """What is known of each token of a batch, in the order of a `Rollout`; None where it was not measured."""

    weights_BT: Float[Tensor, "batch time"]
    """Credit weights."""
    entropy_BT: Float[Tensor, "batch time"] | None = None
    """Entropies, nats."""
    perception_BT: Float[Tensor, "batch time"] | None = None
    """Sensitivities to the image, nats."""
    dominance_BT: Float[Tensor, "batch time"] | None = None
    """Modality dominances, ratios."""
    vision: Sequence[ImageAttention | None] | None = None
    """For each watched completion, the attention on each image token and the grid in which they lie."""


def token_measures(
    signals: TokenSignals,
    measured: Measured,
    credit: Credit,
    vision: Sequence[ImageAttention | None] | None,
) -> TokenMeasures:
    """What is shown of a batch: its weights, and those signals that were measured rather than filled up with NaN."""
    return TokenMeasures(
        weights_BT=credit.weights_BT,
        entropy_BT=signals.entropy_BT,
        perception_BT=None if measured.perception_BT is None else signals.perception_BT,
        dominance_BT=None if measured.attention is None else signals.dominance_BT,
        vision=vision,
    )


def watch(
    rollout: Rollout, measures: TokenMeasures, completion_ids: Sequence[list[int]], tokenizer: Any
) -> tuple[WatchedCompletion, ...]:
    """The completions of the first groups; `completion_ids` may hold as few as these."""
    count = min(WATCHED_GROUPS * rollout.num_generations, len(completion_ids))
    return tuple(_watched(index, rollout, measures, completion_ids[index], tokenizer) for index in range(count))


def _watched(
    index: int, rollout: Rollout, measures: TokenMeasures, ids: list[int], tokenizer: Any
) -> WatchedCompletion:
    attention, grid = (measures.vision[index] if measures.vision else None) or (None, None)
    return WatchedCompletion(
        prompt_id=rollout.prompt_ids[index],
        sample=index % rollout.num_generations,
        tokens=token_texts(tokenizer, ids),
        weight=measures.weights_BT[index, : len(ids)].tolist(),
        entropy=_row(measures.entropy_BT, index, len(ids)),
        perception=_row(measures.perception_BT, index, len(ids)),
        dominance=_row(measures.dominance_BT, index, len(ids)),
        vision_attention=attention,
        vision_grid=grid,
        advantage=rollout.advantages[index].item(),
        reward=rollout.weighted[index].nansum().item(),
        scale=None if rollout.scale is None else rollout.scale[index].item(),
    )


def _row(values_BT: Float[Tensor, "batch time"] | None, index: int, length: int) -> list[float] | None:
    return None if values_BT is None else values_BT[index, :length].tolist()


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text that each token adds, special tokens adding none; together they are the text of all.

    A character of several tokens belongs to the token that completes it.
    """
    texts: list[str] = tokenizer.batch_decode([[each] for each in ids], skip_special_tokens=True)
    if "".join(texts) == tokenizer.decode(ids, skip_special_tokens=True):
        return texts  # hardly a text has characters of several tokens
    texts = []
    begun = read = 0  # tokens from `begun` on are decoded together, those before `read` have had their text
    for end in range(1, len(ids) + 1):
        known = tokenizer.decode(ids[begun:read], skip_special_tokens=True)
        text = tokenizer.decode(ids[begun:end], skip_special_tokens=True)
        if text.endswith(_INCOMPLETE) and end < len(ids):
            texts.append("")
            continue
        texts.append(text[len(known) :])
        begun, read = read, end
    return texts
