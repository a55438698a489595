"""The interface of an engine: conversations go in, completions come out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlassay.config.engine import Beams


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How to decode a batch."""

    sampled: bool
    """Whether to sample; False takes the likeliest token each time."""
    temperature: float
    """Temperature of the sampled distribution."""
    top_p: float
    """Nucleus of the sampled distribution."""
    top_k: int = 0
    """Likeliest tokens to sample from; 0 takes all."""
    min_p: float = 0.0
    """Smallest probability of a sampled token, as a share of the likeliest token's; 0 takes all."""
    max_completion_length: int
    """Longest completion, tokens."""
    seed: int
    """Seed of the sampling."""
    beams: Beams | None = None
    """Beam search in place of the likeliest token each time; None does not search."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One completion."""

    ids: list[int]
    """Its tokens, the end-of-sequence token included."""
    text: str
    """Without special tokens."""
    finished: bool
    """Whether it ended with an end-of-sequence token."""


Engine = Callable[[Sequence[Any], Sequence[list[Any]], Decoding], list[Decoded]]
"""One completion per conversation, determined by the arguments alone.

Its arguments are the chat messages of each prompt; the PIL images of each in their order, then its clips; and how to
decode. `rlassay.evaluation.by_transformers` and `rlassay.evaluation.by_vllm` make one.
"""
