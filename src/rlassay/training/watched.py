"""Completions that are recorded token by token, so that people can see which words a credit pays.

They are those of the first groups of each generation batch. Runs of one seed draw the same prompts at the same step,
so that the same prompts are watched in every arm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

WATCHED_GROUPS = 2
"""Groups of each generation batch."""
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True, kw_only=True)
class WatchedCompletion:
    """One completion of T tokens; a signal that nothing asked for is None."""

    prompt_id: str
    """Which prompt it answers."""
    sample: int
    """0-based index in its group."""
    tokens: list[str]
    """The text of each token; together they are the completion's text."""
    weight: list[float]
    """Credit weight of each token."""
    entropy: list[float] | None
    """Entropy of the distribution that each token was drawn from, nats."""
    perception: list[float] | None
    """Sensitivity of each token to the image, nats."""
    dominance: list[float] | None
    """Modality dominance (MDI) of the row that predicted each token, a ratio."""
    vision_attention: list[float] | None
    """Attention mass on each image token, mean over the completion's tokens and the late layers."""
    vision_grid: list[int] | None
    """Rows and columns in which the image tokens lie; None where they do not lie in one grid."""
    advantage: float
    """Its advantage, before credit spreads it."""
    reward: float
    """Weighted sum of its rewards."""
    scale: float | None
    """Factor of its advantage; None where no credit part scales."""


_TEXTS, _NUMBERS = pa.list_(pa.string()), pa.list_(pa.float32())
_TYPES = {
    "prompt_id": pa.string(),
    "sample": pa.int32(),
    "tokens": _TEXTS,
    "weight": _NUMBERS,
    "entropy": _NUMBERS,
    "perception": _NUMBERS,
    "dominance": _NUMBERS,
    "vision_attention": _NUMBERS,
    "vision_grid": pa.list_(pa.int32()),
    "advantage": pa.float32(),
    "reward": pa.float32(),
    "scale": pa.float32(),
}


def watched_table(step: int, watched: Sequence[WatchedCompletion]) -> pa.Table:
    """One row per watched completion."""
    columns: dict[str, pa.Array] = {"step": pa.array([step] * len(watched), pa.int32())}
    for field in fields(WatchedCompletion):
        values = [getattr(each, field.name) for each in watched]
        columns[field.name] = pa.array(values, _TYPES[field.name])
    return pa.table(columns)


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text that each token adds, special tokens adding none; together they are the text of all.

    A character of several tokens belongs to the token that completes it.
    """
    texts: list[str] = []
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
