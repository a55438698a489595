"""What the processes behind rewards share: small batches, and texts that are too long left out."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 16
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def in_batches(
    work: Callable[[list[ItemT]], Sequence[ResultT]],
    fits: Callable[[ItemT], bool],
    items: Sequence[ItemT],
    size: int = BATCH,
) -> list[ResultT | None]:
    """The result of each item, worked out `size` at a time; None for an item that does not fit."""
    results: list[ResultT | None] = [None for _ in items]
    fitting = [index for index, item in enumerate(items) if fits(item)]
    for start in range(0, len(fitting), size):
        chosen = fitting[start : start + size]
        for index, result in zip(chosen, work([items[index] for index in chosen]), strict=True):
            results[index] = result
    return results


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens that a model takes, as far as it or its tokenizer says so."""
    positions = model.config.get_text_config().to_dict().get("max_position_embeddings")
    return min(tokenizer.model_max_length, positions or tokenizer.model_max_length)
