"""One pass of a model over finished completions, whose logits are made piece by piece."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlassay.models.hub import Model
from rlassay.signals.sharing import SharedPrompts, run_shared


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
