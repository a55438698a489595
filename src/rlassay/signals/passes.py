"""One pass of a model over finished completions, whose logits are made piece by piece."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from rlassay.models.hub import Model

# MERGED FROM signals.sharing: Prompts that several completions of a batch share, which the model need read only
# once.


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
    shared_positions = {}
    if "position_ids" in inputs:
        shared_positions["position_ids"] = inputs["position_ids"][shared.first_rows, :length]
    output = run(**shared.inputs, **shared_positions, past_key_values=cache, use_cache=True)
    of_rows = torch.tensor(shared.of_rows, device=output.last_hidden_state.device)
    last = output.last_hidden_state[of_rows, -1:]
    if inputs["input_ids"].shape[1] == length + 1:
        return output, last
    cache.batch_select_indices(of_rows)
    rest = run(
        input_ids=inputs["input_ids"][:, length:-1],
        attention_mask=inputs["attention_mask"][:, :-1],
        position_ids=_prompt_positions(inputs, output, shared),
        past_key_values=cache,
        use_cache=True,
    )
    return output, torch.cat([last, rest.last_hidden_state], dim=1)


def _prompt_positions(inputs: dict[str, Any], output: Any, shared: SharedPrompts) -> Int[Tensor, "..."]:
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


# MERGED FROM signals.passes: One pass of a model over finished completions, whose logits are made piece by
# piece.


class ModelPass:
    """A teacher-forced pass over prompts and completions, of which the hidden states of the completion are kept.

    Logits of all completion tokens at once would take `B x C x V` numbers, gigabytes for a long completion. So the
    model's own code turns hidden states into logits (its head, with whatever scale or cap it has), some tokens at a
    time: its trunk, once it has run, hands out what it computed.

    Args:
        model: a causal LM or a vision-language model, with or without PEFT adapters.
        model_inputs: what its `forward` takes; `input_ids` and `attention_mask` are (B, P+C).
        completion_length: C.
        shared: prompts that several completions have in common, which are then read only once.

    Errors: ValueError if the model has no trunk apart from its head.
    """

    def __init__(
        self,
        model: Model,
        model_inputs: Mapping[str, Any],
        completion_length: int,
        shared: SharedPrompts | None = None,
    ) -> None:
        self.model: Any = model
        self.trunk: Any = unwrapped(model).base_model
        if self.trunk is unwrapped(model):
            raise ValueError(f"model: {type(model).__name__} has no trunk apart from its head")
        self.inputs = {**model_inputs, **_positions(model, model_inputs), "use_cache": False}
        self.length = completion_length
        self.output: Any = None
        run = self.trunk.forward
        rows = slice(-completion_length - 1, -1)

        def run_once(*args: Any, **kwargs: Any) -> Any:
            if shared is None:
                output = run(*args, **kwargs)
                hidden = output.last_hidden_state[:, rows].clone()
            else:
                output, hidden = run_shared(run, decoder_config(model), self.inputs, shared)
            self.output = _with_hidden(output, hidden)
            return _with_hidden(output, hidden[:, -1:])  # no logits are wanted yet

        with _forward_of(self.trunk, run_once):
            last = self.model(**self.inputs).logits
        self.batch_size, _, self.vocabulary = last.shape

    def logits(self, tokens: slice) -> Float[Tensor, "batch some vocabulary"]:
        """Logits that predicted some of the completion's tokens."""
        hidden = self.output.last_hidden_state[:, tokens]
        with _forward_of(self.trunk, lambda *args, **kwargs: _with_hidden(self.output, hidden)):
            return self.model(**self.inputs).logits


@contextmanager
def scoring_mode(model: Model) -> Iterator[None]:
    """Evaluation mode without gradients; each module's own mode is restored afterwards."""
    module: Any = model
    modes = [(each, each.training) for each in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            yield
    finally:
        for each, training in modes:
            each.training = training


def unwrapped(model: Model) -> PreTrainedModel:
    """The transformers model inside PEFT's wrapper, or the model itself."""
    module: Any = model
    return module if isinstance(module, PreTrainedModel) else module.get_base_model()


def decoder_config(model: Model) -> Any:
    """Config of the text decoder."""
    decoder: Any = unwrapped(model).get_decoder()
    return decoder.config


def _with_hidden(output: Any, hidden: Tensor) -> Any:
    return type(output)(**{**output, "last_hidden_state": hidden})


@contextmanager
def _forward_of(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = vars(module).get("forward")  # set on the instance by whoever wrapped it
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def _positions(model: Model, model_inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, "batch keys"]]:
    """Positions that do not count padding, as in generation, for text models; others find their own."""
    inner = unwrapped(model)
    takes = inspect.signature(type(inner.base_model).forward).parameters
    if inner.get_decoder() is not inner.base_model or "position_ids" not in takes or "position_ids" in model_inputs:
        return {}
    mask = model_inputs["attention_mask"]
    return {"position_ids": (mask.long().cumsum(dim=1) - 1).clamp(min=0)}
