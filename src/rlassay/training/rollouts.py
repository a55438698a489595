"""Every completion of every step: what listeners of the trainer are told, and the tables that are made of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from torch import Tensor

from rlassay.credit import Credit, TokenSignals
from rlassay.files import replacing
from rlassay.layout import shard, shards
from rlassay.rewards.outcomes import FailureKind
from rlassay.signals.measuring import ImageAttention, SignalBatch

# MERGED FROM training.rollouts: Every completion of every step: what listeners of the trainer are told, and the
# tables that are made of it.


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


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One generation batch over all processes: B completions in groups of `num_generations`, R rewards."""

    step: int
    """The optimiser step, counted from 1, that it is generated for."""
    num_generations: int
    """Completions per prompt; a group's completions are neighbours."""
    prompt_ids: list[str]
    """Which prompt each completion answers."""
    completions: list[str]
    """Decoded text."""
    token_counts: list[int]
    """Completion tokens, the end-of-sequence token included."""
    finished: list[bool]
    """False = truncated at the length limit."""
    reward_names: list[str]
    """Names of the R rewards."""
    raw: Float[Tensor, "batch rewards"]
    """Values as the rewards gave them; NaN = cannot be judged."""
    weighted: Float[Tensor, "batch rewards"]
    """What each reward added to the completion's total: weight x value, or weight x the stand-in for NaN."""
    advantages: Float[Tensor, "batch"]
    """Advantages before credit spreads them over the tokens."""
    failed: dict[str, list[FailureKind | None]] = field(default_factory=dict)
    """Per reward, how judging each completion failed; None where it did not."""
    signals: dict[str, Float[Tensor, "batch"]] = field(default_factory=dict)
    """Measurements per completion by name, such as `modality_dominance/late`; NaN = not defined."""
    scale: Float[Tensor, "batch"] | None = None
    """Factor of each completion's advantage; None where no credit part scales."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What signals and credit say of the whole batch, as it is logged."""
    watched: tuple[WatchedCompletion, ...] = ()
    """The completions that are recorded token by token."""


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


def rollout_table(rollout: Rollout) -> pa.Table:
    """One row per completion; NaN becomes null."""
    count = len(rollout.prompt_ids)
    columns: dict[str, pa.Array] = {
        "step": pa.array([rollout.step] * count, pa.int32()),
        "prompt_id": pa.array(rollout.prompt_ids, pa.string()),
        "sample": pa.array([index % rollout.num_generations for index in range(count)], pa.int32()),
        "completion": pa.array(rollout.completions, pa.string()),
        "token_count": pa.array(rollout.token_counts, pa.int32()),
        "finished": pa.array(rollout.finished, pa.bool_()),
        "advantage": _column(rollout.advantages),
        "reward": _column(rollout.weighted.nansum(dim=1)),
    }
    for index, name in enumerate(rollout.reward_names):
        columns[f"raw.{name}"] = _column(rollout.raw[:, index])
        columns[f"weighted.{name}"] = _column(rollout.weighted[:, index])
    columns |= {f"failed.{name}": pa.array(kinds, pa.string()) for name, kinds in rollout.failed.items()}
    columns |= {f"signal.{name}": _column(values) for name, values in rollout.signals.items()}
    if rollout.scale is not None:
        columns["scale"] = _column(rollout.scale)
    return pa.table(columns)


def watched_table(step: int, watched: Sequence[WatchedCompletion]) -> pa.Table:
    """One row per watched completion."""
    columns: dict[str, pa.Array] = {"step": pa.array([step] * len(watched), pa.int32())}
    for column in fields(WatchedCompletion):
        columns[column.name] = pa.array([getattr(each, column.name) for each in watched], _TYPES[column.name])
    return pa.table(columns)


def generated_tokens(folder: Path) -> int:
    """Completion tokens in all shards of a run."""
    return sum(
        sum(pq.read_table(path, columns=["token_count"])["token_count"].to_pylist()) for path in shards(folder).values()
    )


def _column(values: Float[Tensor, "batch"]) -> pa.Array:
    return pa.array(values.cpu().numpy(), pa.float32(), from_pandas=True)


# MERGED FROM training.shards: Files of one step each, `step<n>.parquet`, that a training job writes while it
# goes on.


class ShardWriter:
    """Writes what `table` makes of each generation batch, by rename; several batches of one step share its shard."""

    def __init__(self, folder: Path, table: Callable[[Rollout], pa.Table]) -> None:
        self.folder = folder
        self.table = table
        self._step = 0
        self._tables: list[pa.Table] = []

    def __call__(self, rollout: Rollout) -> None:
        if rollout.step != self._step:
            self._step, self._tables = rollout.step, []
        self._tables.append(self.table(rollout))
        with replacing(shard(self.folder, rollout.step)) as unfinished:
            pq.write_table(pa.concat_tables(self._tables), unfinished)


def drop_shards_after(folder: Path, step: int) -> None:
    """Remove the shards of later steps, which a resumed job writes again."""
    for number, path in shards(folder).items():
        if number > step:
            path.unlink()


# MERGED FROM training.watched: Completions that are recorded token by token, so that people can see which words
# a credit pays. They are those of the first groups of each generation batch. Runs of one seed draw the same
# prompts at the same step, so that the same prompts are watched in every arm.

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
    measured: SignalBatch,
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
