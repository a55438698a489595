# pyright: basic
# transformers' attention functions, masks and configs are untyped.
"""Record the attention mass of a transformers model under its own attention implementation.

The model runs with its own kernel (eager, sdpa, flash). In addition, the queries and keys of the completion's rows are
scored a second time, and only the sums over key segments are kept.
"""

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from rlassay.models.hub import Model
from rlassay.models.seq2seq import Seq2SeqPass, is_encoder_decoder, unwrapped
from rlassay.signals.passes import ModelPass, SharedPrompts, scoring_mode

_SUFFIX = "+attention_mass"

# Options that transformers' function for an implementation ignores, although a model passes them.
_IGNORED = {"sdpa": {"softcap", "s_aux"}}

# Scores held at a time. On a CPU a block should stay in its cache; a GPU is faster with fewer and larger ones.
_SCORES_ON_CPU = 2**19
_SCORES_ON_GPU = 2**24


def attention_mass(
    model: Model,
    model_inputs: Mapping[str, Any],
    segment_ids: Int[Tensor, "batch keys"],
    completion_length: int,
    layers: Sequence[int] | None = None,
    *,
    num_segments: int | None = None,
) -> Float[Tensor, "layers batch time segments"]:
    """Attention mass per completion token, layer and key segment, mean over heads.

    It is from one teacher-forced pass.

    Row t belongs to the query that *predicted* completion token t, at position P - 1 + t of a prompt of P positions.
    Exact under every attention implementation of transformers that takes a mask (eager, sdpa, flash): the model's own
    queries and keys are scored a second time, for the completion's rows only, so that no matrix of all positions by all
    positions is made. Only the text decoder is recorded, never a vision tower. For an encoder-decoder it is the
    decoder's cross-attention, to the prompt alone: the attention of a completion to its document.

    Args:
        model: a causal LM, a vision-language model or an encoder-decoder, with or without PEFT adapters; it runs in
            evaluation mode without gradients, and is restored afterwards.
        model_inputs: arguments of its `forward`: `input_ids` and `attention_mask`, both (B, P+C), pixels and so on.
        segment_ids: (B, P+C), the segment of each position as a key; -1 is not counted.
        completion_length: C.
        layers: indices of the layers to return, in this order; None means every layer that attends.
        num_segments: S; None means the largest id + 1.

    Rows of positions that `attention_mask` hides (after the end of a completion) are 0. Others sum to 1 over the
    segments if every key is in a segment, unless the layer has attention sinks, which take the rest.

    Errors: ValueError if shapes do not fit, if a requested layer never attends, or if the attention cannot be scored
    again (flex attention, position biases, keys that are not the positions of `input_ids`).
    """
    if is_encoder_decoder(model):
        return _cross_attention_mass(model, model_inputs, segment_ids, completion_length, layers, num_segments)
    recording = Recording(segment_ids, completion_length, layers, num_segments=num_segments)
    with scoring_mode(model), recorded_attention(model, recording):
        ModelPass(model, model_inputs, completion_length)
    return recording.mass(model_inputs["attention_mask"])


def _cross_attention_mass(
    model: Model,
    model_inputs: Mapping[str, Any],
    segment_ids: Tensor,
    completion_length: int,
    layers: Sequence[int] | None,
    num_segments: int | None,
) -> Tensor:
    """`attention_mass` of an encoder-decoder."""
    ids, mask = model_inputs["input_ids"], model_inputs["attention_mask"]
    recording = CrossRecording(segment_ids, completion_length, layers, num_segments=num_segments)
    # The encoder's keys are in the order in which `teacher_forcing` gives it the prompt.
    prompts = slice(None, -completion_length)
    order = mask[:, prompts].argsort(dim=1, descending=True, stable=True)
    recording.indicator = recording.indicator[:, prompts].gather(
        1, order[..., None].expand(-1, -1, recording.indicator.shape[2])
    )
    with scoring_mode(model), recorded_attention(model, recording):
        Seq2SeqPass(model, ids, mask, completion_length)
    return recording.mass(mask)


class Recording:
    """The attention mass of one pass: settings of the recording, and rows recorded so far."""

    def __init__(
        self,
        segment_ids: Int[Tensor, "batch keys"],
        completion_length: int,
        layers: Sequence[int] | None = None,
        *,
        num_segments: int | None = None,
        shared: SharedPrompts | None = None,
    ) -> None:
        size = int(segment_ids.max()) + 1 if num_segments is None else num_segments
        if not 0 < completion_length < segment_ids.shape[1] or int(segment_ids.max()) >= size:
            raise ValueError(
                f"segment_ids: got shape {tuple(segment_ids.shape)} and ids up to {int(segment_ids.max())}, expected "
                f"more than completion_length={completion_length} positions and ids below num_segments={size}"
            )
        self.indicator = (segment_ids[..., None] == torch.arange(size, device=segment_ids.device)).float()
        self.completion_length = completion_length
        self.layers = layers
        self.shared = shared
        self.by_layer: dict[int, dict[int, Tensor]] = {}  # blocks of rows, by their first position

    def add(self, module: Any, query: Tensor, key: Tensor, mask: Any, options: Mapping[str, Any]) -> None:
        """Score the completion's rows of one attention layer a second time."""
        if self.layers is not None and module.layer_idx not in self.layers:
            return
        first = self._first(module.layer_idx, query.shape[2], key.shape[2])
        if options.get("position_bias") is not None:
            raise ValueError(f"layer {module.layer_idx} adds position biases, which cannot be recorded")
        # With a shared prompt a layer is called twice: record the completion's rows that are among these queries.
        size, num_keys = self.indicator.shape[1], key.shape[2]
        start = max(size - self.completion_length - 1 - first, 0)
        rows = slice(start, min(size - 1, num_keys) - first)
        scaling = options.get("scaling")
        scoring = AttentionScoring(
            scaling=query.shape[3] ** -0.5 if scaling is None else scaling,
            softcap=options.get("softcap"),
            sinks=options.get("s_aux"),
        )
        seen = _row_mask(mask, rows, first, num_keys, options.get("sliding_window")).to(query.device)
        indicator = self.indicator[:, :num_keys].to(query.device)
        if self.shared is not None and first == 0:
            mass = segment_mass(query[:, :, rows], key, seen, indicator[self.shared.first_rows], scoring)
            mass = mass[self.shared.of_rows]
        else:
            mass = segment_mass(query[:, :, rows], key, seen, indicator, scoring)
        self.by_layer.setdefault(module.layer_idx, {})[first + start] = mass

    def _first(self, layer: int, num_queries: int, num_keys: int) -> int:
        """Position of the first query: 0, or the end of a prompt that completions share."""
        size = self.indicator.shape[1]
        fits = num_queries == num_keys == size
        if self.shared is not None:
            fits = num_queries == num_keys == size - self.completion_length or num_keys == size - 1
        if not fits:
            raise ValueError(
                f"layer {layer} attends from {num_queries} positions to {num_keys}, but segment_ids has {size}; "
                "only self-attention over the input's own positions can be recorded"
            )
        return num_keys - num_queries

    def mass(self, attention_mask: Int[Tensor, "batch keys"]) -> Float[Tensor, "layers batch time segments"]:
        """Recorded mass of all layers; 0 where `attention_mask` hides the completion's token."""
        missing = set(self.layers or ()) - set(self.by_layer)
        if missing or not self.by_layer:
            raise ValueError(
                f"layers: {sorted(missing) or 'any'} never attended through transformers' attention interface; "
                f"recorded: {sorted(self.by_layer)}"
            )
        wanted = sorted(self.by_layer) if self.layers is None else self.layers
        by_layer = [torch.cat([rows for _, rows in sorted(self.by_layer[layer].items())], dim=1) for layer in wanted]
        mass = torch.stack([each.to(attention_mask.device) for each in by_layer])
        is_token = attention_mask[:, -self.completion_length :, None].bool()
        return torch.where(is_token, mass, 0.0)


class CrossRecording(Recording):
    """The cross-attention mass of one pass of an encoder-decoder, whose keys are the encoder's positions."""

    def add(self, module: Any, query: Tensor, key: Tensor, mask: Any, options: Mapping[str, Any]) -> None:
        """Score the completion's rows of one cross-attention layer a second time."""
        if module.is_causal or (self.layers is not None and module.layer_idx not in self.layers):
            return  # self-attention of the same layer, or a layer that is not asked for
        rows = slice(query.shape[2] - self.completion_length, None)
        seen = torch.ones((1, 1, 1, key.shape[2]), dtype=torch.bool, device=query.device)
        if mask is not None:
            seen = mask if mask.ndim == 4 else mask[:, None, None, :].bool()
        seen = (seen if seen.shape[2] == 1 else seen[:, :, rows]).expand(-1, -1, self.completion_length, -1)
        bias = options.get("position_bias")
        if bias is not None:  # T5 adds one, all zeros, to its cross-attention
            added = torch.where(seen, 0.0, float("-inf")) if seen.dtype == torch.bool else seen
            seen = added + bias[:, :, rows]
        scaling = options.get("scaling")
        scoring = AttentionScoring(scaling=query.shape[3] ** -0.5 if scaling is None else scaling)
        mass = segment_mass(query[:, :, rows], key, seen, self.indicator.to(query.device), scoring)
        self.by_layer.setdefault(module.layer_idx, {})[0] = mass


# The recording of each attention module: filled during a pass, and weak in case the pass never ends.
_RECORDINGS: WeakKeyDictionary[nn.Module, Recording] = WeakKeyDictionary()


@contextmanager
def recorded_attention(model: Model, recording: Recording) -> Generator[None]:
    """Record the text decoder's attention layers in the body; restores their implementation afterwards."""
    decoder: Any = unwrapped(model).get_decoder()
    config = decoder.config
    implementation = config._attn_implementation
    name = _registered(implementation)
    modules = list(decoder.modules())
    try:
        _RECORDINGS.update(dict.fromkeys(modules, recording))
        config._attn_implementation = {"": name}  # a dict leaves nested configs, such as the vision tower's, unchanged
        yield
    finally:
        config._attn_implementation = {"": implementation}
        for module in modules:
            _RECORDINGS.pop(module, None)


def _registered(implementation: str) -> str:
    # A suffix keeps the implementation's own name in front: transformers recognises flash attention by it.
    if implementation.endswith(_SUFFIX) or implementation == "flex_attention" or implementation.startswith("paged|"):
        raise ValueError(
            f"attn_implementation: got {implementation!r}, expected eager, sdpa or flash attention, not recorded yet"
        )
    name = implementation + _SUFFIX
    AttentionInterface.register(name, partial(_attend, implementation))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return name


def _attend(
    implementation: str,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Run the model's own attention, then record it if a recording is active."""
    namespace = vars(sys.modules[type(module).__module__])
    attend = namespace["ALL_ATTENTION_FUNCTIONS"].get_interface(
        implementation, namespace.get("eager_attention_forward")
    )
    recorded_as = module.config._attn_implementation
    module.config._attn_implementation = {"": implementation}  # flash attention selects its kernel by this name
    try:
        output = attend(module, query, key, value, attention_mask, **options)
    finally:
        module.config._attn_implementation = {"": recorded_as}
    recording = _RECORDINGS.get(module)
    if recording is not None:
        applied = {name: each for name, each in options.items() if name not in _IGNORED.get(implementation, ())}
        recording.add(module, query, key, attention_mask, applied)
    return output


def _row_mask(
    mask: Tensor | None, rows: slice, first: int, num_keys: int, sliding_window: int | None
) -> Bool[Tensor, "#batch #heads rows keys"] | Float[Tensor, "#batch #heads rows keys"]:
    """Mask of the rows, built here for flash attention, whose kernel applies causality and windows.

    Args:
        mask: as passed to the layer.
        rows: slice of the queries.
        first: position of the first query.
        num_keys: number of keys, from the first position on.
        sliding_window: number of keys that a query sees, itself included; None means all.
    """
    if mask is not None and mask.ndim == 4:
        return mask[:, :, rows, :num_keys]
    keys = torch.arange(num_keys, device=None if mask is None else mask.device)
    queries = keys[first:][rows, None]
    seen = keys <= queries
    if sliding_window is not None:
        seen &= keys > queries - sliding_window
    return seen[None, None] if mask is None else seen & mask[:, None, None, :].bool()


@dataclass(frozen=True, kw_only=True)
class AttentionScoring:
    """How a layer turns queries and keys into scores, apart from the mask."""

    scaling: float
    """Factor of the dot products."""
    softcap: float | None = None
    """Bound c of scores s, which become c tanh(s / c); None applies no bound."""
    sinks: Float[Tensor, "heads"] | None = None
    """Learned score per head that competes with the keys; its mass goes to no key."""


def segment_mass(
    query: Float[Tensor, "batch heads rows width"],
    key: Float[Tensor, "batch kv_heads keys width"],
    mask: Bool[Tensor, "#batch #heads rows keys"] | Float[Tensor, "#batch #heads rows keys"],
    indicator: Float[Tensor, "batch keys segments"],
    scoring: AttentionScoring,
) -> Float[Tensor, "batch rows segments"]:
    """Attention mass of each row on each segment, mean over heads: `mean_h softmax(q_h k_h') indicator`.

    Exact, and computed in blocks of rows, so that memory grows only with the number of keys.

    Args:
        query: of the rows to measure; `heads` is a multiple of `kv_heads`, whose keys neighbouring heads share.
        key: of every position.
        mask: True where a row sees a key; or floats to add to the scores.
        indicator: 1 where a key belongs to a segment.
        scoring: scale, cap and sinks of the layer.

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
    scoring: AttentionScoring,
) -> Float[Tensor, "batch heads rows keys"]:
    (batch, heads, rows, width), (_, kv_heads, keys, _) = query.shape, key.shape
    # Heads that share keys become rows of one matrix product, which avoids copying keys.
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
