"""Attention mass of a transformers model, recorded while it attends in its own way."""

import sys
from collections.abc import Iterator, Mapping, Sequence
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
from rlassay.signals.passes import ModelPass, SharedPrompts, scoring_mode, unwrapped

# MERGED FROM signals.mass: How much attention some queries pay to each segment of the keys: the pure part.

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


# MERGED FROM signals.attention: Attention mass of a transformers model, recorded while it attends in its own
# way.

_SUFFIX = "+attention_mass"

# What transformers' function for an implementation leaves out, although a model passes it.
_LEFT_OUT = {"sdpa": {"softcap", "s_aux"}}


def attention_mass(
    model: Model,
    model_inputs: Mapping[str, Any],
    segment_ids: Int[Tensor, "batch keys"],
    completion_length: int,
    layers: Sequence[int] | None = None,
    *,
    num_segments: int | None = None,
) -> Float[Tensor, "layers batch time segments"]:
    """Attention mass per completion token, layer and key segment, mean over heads, from one teacher-forced pass.

    Row t belongs to the query that *predicted* completion token t, at position P - 1 + t of a prompt of P positions.
    Exact under every attention implementation of transformers that takes a mask (eager, sdpa, flash), since the model's
    own queries and keys are scored a second time for the rows of the completion only; no matrix of all positions by all
    positions is ever made. Only the text decoder is looked at, never a vision tower.

    Args:
        model: a causal LM or a vision-language model, with or without PEFT adapters; it is run in evaluation mode
            without gradients, and left as it was.
        model_inputs: what its `forward` takes: `input_ids` and `attention_mask`, both (B, P+C), pixels and the like.
        segment_ids: (B, P+C), the segment of each position as a key; -1 is not counted.
        completion_length: C.
        layers: indices of the layers wanted, in the order wanted; None means every layer that attends.
        num_segments: S; None means the largest id + 1.

    Rows of positions that `attention_mask` hides (after the end of a completion) are 0. Others sum to 1 over the
    segments if every key is in a segment, unless the layer has attention sinks, which take the rest.

    Errors: ValueError if shapes do not fit, a layer wanted never attends, or the model attends in a way that cannot be
    scored again (flex attention, position biases, keys that are not the positions of `input_ids`).
    """
    recording = Recording(segment_ids, completion_length, layers, num_segments=num_segments)
    with scoring_mode(model), recorded_attention(model, recording):
        ModelPass(model, model_inputs, completion_length)
    return recording.mass(model_inputs["attention_mask"])


class Recording:
    """What one pass shall record, and what it has recorded."""

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
        self.by_layer: dict[int, dict[int, Tensor]] = {}  # rows by the first of them

    def add(self, module: Any, query: Tensor, key: Tensor, mask: Any, options: Mapping[str, Any]) -> None:
        """Score the completion's rows of one attention layer again."""
        if self.layers is not None and module.layer_idx not in self.layers:
            return
        first = self._first(module.layer_idx, query.shape[2], key.shape[2])
        if options.get("position_bias") is not None:
            raise ValueError(f"layer {module.layer_idx} adds position biases, which cannot be recorded")
        # Of the completion's rows, those that are among the queries.
        size, num_keys = self.indicator.shape[1], key.shape[2]
        start = max(size - self.completion_length - 1 - first, 0)
        rows = slice(start, min(size - 1, num_keys) - first)
        scaling = options.get("scaling")
        scoring = Scoring(
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
        """Position of the first query: 0, or after the prompt where completions go on from a shared one."""
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
        """All layers; 0 where `attention_mask` hides the completion's token."""
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


# Which pass records which attention modules: filled for the time of a pass, and weak in case it is never left.
_RECORDINGS: WeakKeyDictionary[nn.Module, Recording] = WeakKeyDictionary()


@contextmanager
def recorded_attention(model: Model, recording: Recording) -> Iterator[None]:
    """Let the text decoder's attention layers record, and restore their implementation afterwards."""
    decoder: Any = unwrapped(model).get_decoder()
    config = decoder.config
    implementation = config._attn_implementation
    name = _registered(implementation)
    modules = list(decoder.modules())
    try:
        _RECORDINGS.update(dict.fromkeys(modules, recording))
        config._attn_implementation = {"": name}  # in this form it leaves the configs inside it alone
        yield
    finally:
        config._attn_implementation = {"": implementation}
        for module in modules:
            _RECORDINGS.pop(module, None)


def _registered(implementation: str) -> str:
    # The suffix comes last: transformers recognises flash attention by its name, and each kind takes its own masks.
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
    """The model's own attention for its output; then the recording, where there is one."""
    home = vars(sys.modules[type(module).__module__])
    attend = home["ALL_ATTENTION_FUNCTIONS"].get_interface(implementation, home.get("eager_attention_forward"))
    recorded_as = module.config._attn_implementation
    module.config._attn_implementation = {"": implementation}  # flash attention picks its kernel by this name
    try:
        output = attend(module, query, key, value, attention_mask, **options)
    finally:
        module.config._attn_implementation = {"": recorded_as}
    recording = _RECORDINGS.get(module)
    if recording is not None:
        used = {name: each for name, each in options.items() if name not in _LEFT_OUT.get(implementation, ())}
        recording.add(module, query, key, attention_mask, used)
    return output


def _row_mask(
    mask: Tensor | None, rows: slice, first: int, num_keys: int, sliding_window: int | None
) -> Bool[Tensor, "#batch #heads rows keys"] | Float[Tensor, "#batch #heads rows keys"]:
    """What the rows see; flash attention leaves all but padding to its kernel.

    Args:
        mask: what the layer was given.
        rows: among the queries.
        first: position of the first query.
        num_keys: from the first position on.
        sliding_window: keys that a query sees, itself included; None means all.
    """
    if mask is not None and mask.ndim == 4:
        return mask[:, :, rows, :num_keys]
    keys = torch.arange(num_keys, device=None if mask is None else mask.device)
    queries = keys[first:][rows, None]
    seen = keys <= queries
    if sliding_window is not None:
        seen &= keys > queries - sliding_window
    return seen[None, None] if mask is None else seen & mask[:, None, None, :].bool()
