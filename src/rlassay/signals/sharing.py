"""Prompts that several completions of a batch share, which the model need read only once."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


@dataclass(frozen=True, kw_only=True)
class SharedPrompts:
    """The distinct prompts of a batch."""

    inputs: dict[str, Tensor]
    """What the model takes for them alone: `input_ids` and `attention_mask` are (D, P)."""
    first_rows: list[int]
    """D rows of the batch that begin with them."""
    of_rows: list[int]
    """B indices: the distinct prompt that each row begins with."""


def can_share(trunk: Any, config: Any, shared: SharedPrompts) -> bool:
    """Whether completions can go on from keys and values of their prompts: each layer must keep all of them.

    Not so with sliding windows or recurrent states, nor where tokens of a prompt see ones that follow (told by
    `token_type_ids`).

    Args:
        trunk: the model without its head.
        config: of its text decoder.
        shared: the distinct prompts.
    """
    if len(shared.first_rows) == len(shared.of_rows) or "token_type_ids" in shared.inputs:
        return False
    takes = inspect.signature(type(trunk).forward).parameters
    layers = DynamicCache(config=config).layers
    keeps_all = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return keeps_all and {"past_key_values", "position_ids"} <= set(takes)


def run_shared(
    run: Callable[..., Any], config: Any, inputs: dict[str, Any], shared: SharedPrompts
) -> tuple[Any, Tensor]:
    """Run a trunk on each distinct prompt, then on all completions.

    Args:
        run: the trunk's `forward`.
        config: of its text decoder.
        inputs: of the whole batch; `input_ids` and `attention_mask` are (B, P+C), `position_ids` may be given.
        shared: the distinct prompts.

    Returns:
        output: of the trunk, for everything but hidden states.
        hidden: (B, C, width), hidden states of the queries that predicted the completions.
    """
    length = shared.inputs["input_ids"].shape[1]
    cache = DynamicCache(config=config)
    told = {}
    if "position_ids" in inputs:
        told["position_ids"] = inputs["position_ids"][shared.first_rows, :length]
    output = run(**shared.inputs, **told, past_key_values=cache, use_cache=True)
    of_rows = torch.tensor(shared.of_rows, device=output.last_hidden_state.device)
    last = output.last_hidden_state[of_rows, -1:]
    if inputs["input_ids"].shape[1] == length + 1:
        return output, last
    cache.batch_select_indices(of_rows)
    rest = run(
        input_ids=inputs["input_ids"][:, length:-1],
        attention_mask=inputs["attention_mask"][:, :-1],
        position_ids=_positions(inputs, output, shared),
        past_key_values=cache,
        use_cache=True,
    )
    return output, torch.cat([last, rest.last_hidden_state], dim=1)


def _positions(inputs: dict[str, Any], output: Any, shared: SharedPrompts) -> Int[Tensor, "..."]:
    """Positions of the completions' tokens, as they follow from those that the prompts had."""
    batch, size = inputs["input_ids"].shape
    length = shared.inputs["input_ids"].shape[1]
    if "position_ids" in inputs:
        return inputs["position_ids"][:, length:-1]
    mask = inputs["attention_mask"]
    if "rope_deltas" in output and any(name.endswith("grid_thw") for name in shared.inputs):
        # Qwen-VL: an image takes fewer positions than tokens, the same shift in each of the three dimensions.
        shift = output.rope_deltas[torch.tensor(shared.of_rows, device=mask.device)]
        return ((mask.long().cumsum(dim=1) - 1)[:, length:-1] + shift).expand(3, -1, -1)
    return torch.arange(length, size - 1, device=mask.device).expand(batch, -1)
