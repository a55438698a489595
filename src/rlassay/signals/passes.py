# pyright: basic
# transformers' modules, caches and outputs are untyped.
"""Teacher-forced passes of a model over finished completions.

Logits are computed piece by piece, and prompts that several completions share are processed once.
"""

import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rlassay.models.hub import Model
from rlassay.models.seq2seq import unwrapped


@dataclass(frozen=True, kw_only=True)
class SharedPrompts:
    """The distinct prompts of a batch, whose keys and values its completions reuse."""

    inputs: dict[str, Tensor]
    """Model inputs of these prompts alone: `input_ids` and `attention_mask` are (D, P)."""
    first_rows: list[int]
    """For each of the D prompts, the batch's first row that begins with it."""
    of_rows: list[int]
    """For each of the B rows, the index of its prompt."""


class ModelPass:
    """A teacher-forced pass over prompts and completions that keeps the completions' hidden states.

    Logits of all completion tokens at once would take `B x C x V` numbers, gigabytes for a long completion. So `logits`
    computes them for some tokens at a time. It calls the model's own `forward` with a trunk that returns the stored
    hidden states, so that the head keeps any scale or cap of the model.

    Args:
        model: a causal LM or a vision-language model, with or without PEFT adapters.
        model_inputs: arguments of its `forward`; `input_ids` and `attention_mask` are (B, P+C).
        completion_length: C.
        shared: the distinct prompts, each of which is then processed once; None processes every row whole.
        skip_padding: whether position ids of a text model skip the padding, as in generation; False leaves them to the
            model, as TRL's loss does.

    Errors: ValueError if the model has no trunk separate from its head.
    """

    def __init__(
        self,
        model: Model,
        model_inputs: Mapping[str, Any],
        completion_length: int,
        shared: SharedPrompts | None = None,
        *,
        skip_padding: bool = True,
    ) -> None:
        self.model: Any = model
        self.trunk: Any = trunk_of(model)
        positions = _positions(model, model_inputs) if skip_padding else {}
        self.inputs = {**model_inputs, **positions, "use_cache": False}
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
            return _with_hidden(output, hidden[:, -1:])  # logits come later, in pieces

        with _forward_of(self.trunk, run_once):
            last = self.model(**self.inputs).logits
        self.batch_size, _, self.vocabulary = last.shape

    def logits(self, tokens: slice) -> Float[Tensor, "batch some vocabulary"]:
        """Logits of the positions that predicted these completion tokens."""
        hidden = self.output.last_hidden_state[:, tokens]
        with _forward_of(self.trunk, lambda *args, **kwargs: _with_hidden(self.output, hidden)):
            return self.model(**self.inputs).logits


class _CalledError(Exception):
    """A module was called."""


_HEADS_ON_DECODERS: dict[type, bool] = {}
"""Model class -> whether its head calls the text decoder directly, past `base_model`."""


def trunk_of(model: Model) -> Any:
    """The module whose hidden states the head of a model reads.

    It is the model's `base_model`, or the decoder inside (OPT).

    Errors: ValueError if the model has no trunk separate from its head.
    """
    inner = unwrapped(model)
    trunk, decoder = inner.base_model, inner.get_decoder()
    if trunk is inner:
        raise ValueError(f"model: {type(inner).__name__} has no trunk separate from its head")
    if decoder is None or decoder is trunk:
        return trunk
    if type(inner) not in _HEADS_ON_DECODERS:
        _HEADS_ON_DECODERS[type(inner)] = not _calls(inner, trunk)
    return decoder if _HEADS_ON_DECODERS[type(inner)] else trunk


def _calls(model: Any, module: nn.Module) -> bool:
    """Whether the forward pass of a model calls a module; the pass ends there."""

    def stop(*args: Any, **kwargs: Any) -> Any:
        raise _CalledError

    ids = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    with _forward_of(module, stop), torch.no_grad():
        try:
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        except _CalledError:
            return True
    return False


def can_share(trunk: Any, config: Any, shared: SharedPrompts) -> bool:
    """Whether completions can reuse the keys and values of their prompts.

    Each layer must keep all of them. False with sliding windows or recurrent states, and where prompt tokens attend to
    later ones (models that take `token_type_ids`).

    Args:
        trunk: the model without its head.
        config: config of its text decoder.
        shared: the distinct prompts.
    """
    if len(shared.first_rows) == len(shared.of_rows) or "token_type_ids" in shared.inputs:
        return False
    accepted = inspect.signature(type(trunk).forward).parameters
    layers = DynamicCache(config=config).layers
    keeps_all = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return keeps_all and {"past_key_values", "position_ids"} <= set(accepted)


def run_shared(
    run: Callable[..., Any], config: Any, inputs: dict[str, Any], shared: SharedPrompts
) -> tuple[Any, Tensor]:
    """Run a trunk on each distinct prompt, then on all completions with the prompts' cache.

    Args:
        run: the trunk's `forward`.
        config: config of its text decoder.
        inputs: model inputs of the whole batch; `input_ids` and `attention_mask` are (B, P+C), `position_ids` optional.
        shared: the distinct prompts.

    Returns:
        output: the trunk's output on the prompts, for everything but hidden states.
        hidden: (B, C, width), hidden states of the positions that predicted the completions.
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
        position_ids=_completion_positions(inputs, output, shared),
        past_key_values=cache,
        use_cache=True,
    )
    return output, torch.cat([last, rest.last_hidden_state], dim=1)


@contextmanager
def scoring_mode(model: Model) -> Generator[None]:
    """Evaluation mode without gradients; restores each module's own mode afterwards."""
    module: Any = model
    modes = [(each, each.training) for each in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            yield
    finally:
        for each, training in modes:
            each.training = training


def decoder_config(model: Model) -> Any:
    """The config of the text decoder."""
    decoder: Any = unwrapped(model).get_decoder()
    return decoder.config


def _completion_positions(inputs: dict[str, Any], output: Any, shared: SharedPrompts) -> Int[Tensor, "..."]:
    """Position ids of the completions' tokens, which continue those of the prompts."""
    batch, size = inputs["input_ids"].shape
    length = shared.inputs["input_ids"].shape[1]
    if "position_ids" in inputs:
        return inputs["position_ids"][:, length:-1]
    mask = inputs["attention_mask"]
    if "rope_deltas" in output and any(name.endswith("grid_thw") for name in shared.inputs):
        # Qwen-VL: an image takes fewer positions than tokens; the shift is the same in all three dimensions.
        shift = output.rope_deltas[torch.tensor(shared.of_rows, device=mask.device)]
        return ((mask.long().cumsum(dim=1) - 1)[:, length:-1] + shift).expand(3, -1, -1)
    return torch.arange(length, size - 1, device=mask.device).expand(batch, -1)


def _with_hidden(output: Any, hidden: Tensor) -> Any:
    return type(output)(**{**output, "last_hidden_state": hidden})


@contextmanager
def _forward_of(module: nn.Module, forward: Callable[..., Any]) -> Generator[None]:
    before = vars(module).get("forward")  # gradient checkpointing and accelerate set it on the instance
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def _positions(model: Model, model_inputs: Mapping[str, Any]) -> dict[str, Int[Tensor, "batch keys"]]:
    """Position ids that skip padding, as in generation, for text models; others compute their own."""
    inner = unwrapped(model)
    accepted = inspect.signature(type(inner.base_model).forward).parameters
    if inner.get_decoder() is not inner.base_model or "position_ids" not in accepted or "position_ids" in model_inputs:
        return {}
    mask = model_inputs["attention_mask"]
    return {"position_ids": (mask.long().cumsum(dim=1) - 1).clamp(min=0)}
