# pyright: basic
# (pyarrow has no types)
"""Record every completion of every step: `Rollout`, which listeners receive, and its parquet shards."""

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
from rlassay.signals.document import DocumentAttention
from rlassay.signals.measuring import ImageAttention, SignalBatch
from rlassay.training.batch import GreedyCompletions

TOKEN_GROUPS = 2
"""Groups of each generation batch that are recorded token by token, the first ones.

Runs of one seed draw the same prompts at the same step, so that these are the same prompts in every arm.
"""
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True, kw_only=True)
class TokenRecord:
    """One completion of T tokens, token by token; a signal that was not measured is None."""

    prompt_id: str
    """Prompt that it answers."""
    sample: int
    """0-based index in its group."""
    tokens: list[str]
    """(T), text of each token; joined they are the completion's text."""
    weight: list[float]
    """(T), credit weight of each token."""
    entropy: list[float] | None
    """(T), entropy of the distribution from which each token was sampled, nats."""
    perception: list[float] | None
    """(T), sensitivity of each token to the image, nats."""
    dominance: list[float] | None
    """(T), modality dominance (MDI) of the row that predicted each token, a ratio."""
    vision_attention: list[float] | None
    """Attention mass on each image token, mean over the completion's tokens and the late layers."""
    vision_grid: list[int] | None
    """Rows and columns of the image tokens, after the number of frames or images; None without one grid."""
    document_tokens: list[str] | None = None
    """Text of each document token of an encoder-decoder, without control tokens."""
    document_attention: list[float] | None = None
    """Attention mass on each document token, mean over the completion's tokens and the late layers."""
    advantage: float
    """Advantage before credit."""
    reward: float
    """Weighted sum of its rewards."""
    scale: float | None
    """Factor of its advantage; None where no credit part scales."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One generation batch over all processes: N completions in groups of `num_generations`, R rewards."""

    step: int
    """Optimiser step for which it is sampled, from 1."""
    num_generations: int
    """Completions per prompt; those of a prompt are neighbours."""
    prompt_ids: list[str]
    """(N), prompt that each completion answers."""
    completions: list[str]
    """(N), decoded text."""
    token_counts: list[int]
    """(N), completion tokens, the end-of-sequence token included."""
    finished: list[bool]
    """(N), False = truncated at the length limit."""
    reward_names: list[str]
    """(R), names of the rewards."""
    raw: Float[Tensor, "batch rewards"]
    """(N, R), values as the rewards returned them; NaN = could not score."""
    weighted: Float[Tensor, "batch rewards"]
    """(N, R), contribution of each reward to the completion's total. It is weight x value, imputed where the value is
    NaN."""
    advantages: Float[Tensor, "batch"]
    """(N,), advantages before credit."""
    failed: dict[str, list[FailureKind | None]] = field(default_factory=dict)
    """By reward (N), the kind of failure on each completion; None where it did not fail."""
    signals: dict[str, Float[Tensor, "batch"]] = field(default_factory=dict)
    """By name such as `modality_dominance/late` (N,), signals of each completion; NaN = not defined."""
    scale: Float[Tensor, "batch"] | None = None
    """(N,), factor of each completion's advantage; None where no credit part scales."""
    greedy: GreedyCompletions | None = None
    """The greedy completions of the prompts; None unless the advantage estimator reads them."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Attention and credit metrics of the batch, as logged."""
    use: list[str] | None = None
    """(N), `trained`, `dropped` (sampled only) or `replayed` (sampled at an earlier step); None = all trained."""
    token_records: tuple[TokenRecord, ...] = ()
    """The completions of the first `TOKEN_GROUPS` groups, token by token."""


def rollout_table(rollout: Rollout) -> Any:
    """The `pyarrow.Table` with one row per completion that was sampled at this step; NaN becomes null.

    If not all completions train, the column `trained` marks those that do; replayed ones are in earlier shards.
    """
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
    if rollout.greedy is not None:
        columns["greedy_reward"] = _column(rollout.greedy.rewards)
        columns["greedy_token_count"] = pa.array(rollout.greedy.token_counts, pa.int32())
    if rollout.use is None:
        return pa.table(columns)
    columns["trained"] = pa.array([use == "trained" for use in rollout.use], pa.bool_())
    return pa.table(columns).filter(pa.array([use != "replayed" for use in rollout.use], pa.bool_()))


_TEXTS, _NUMBERS = pa.list_(pa.string()), pa.list_(pa.float32())
_TOKEN_COLUMNS = {
    "prompt_id": pa.string(),
    "sample": pa.int32(),
    "tokens": _TEXTS,
    "weight": _NUMBERS,
    "entropy": _NUMBERS,
    "perception": _NUMBERS,
    "dominance": _NUMBERS,
    "vision_attention": _NUMBERS,
    "vision_grid": pa.list_(pa.int32()),
    "document_tokens": _TEXTS,
    "document_attention": _NUMBERS,
    "advantage": pa.float32(),
    "reward": pa.float32(),
    "scale": pa.float32(),
}


def token_table(rollout: Rollout) -> Any:
    """The `pyarrow.Table` with one row per token record."""
    records = rollout.token_records
    columns: dict[str, pa.Array] = {"step": pa.array([rollout.step] * len(records), pa.int32())}
    for column in fields(TokenRecord):
        values = [getattr(record, column.name) for record in records]
        columns[column.name] = pa.array(values, _TOKEN_COLUMNS[column.name])
    return pa.table(columns)


class ShardWriter:
    """Writes `step<n>.parquet` per step, by rename; several generation batches of one step share a shard."""

    def __init__(self, folder: Path, table: Callable[[Rollout], Any]) -> None:
        """
        Args:
            folder: the shards' folder.
            table: `rollout_table` or `token_table`.
        """
        self.folder = folder
        self.table = table
        self._step = 0
        self._tables: list[pa.Table] = []

    def __call__(self, rollout: Rollout) -> None:
        if rollout.step != self._step:
            self._step, self._tables = rollout.step, []
        self._tables.append(self.table(rollout))
        with replacing(shard(self.folder, rollout.step)) as unfinished:
            # Completions that do not train have no signals and no scale: null.
            pq.write_table(pa.concat_tables(self._tables, promote_options="default"), unfinished)


def drop_shards_after(folder: Path, step: int) -> None:
    """Remove the shards of later steps, which a resumed job writes again."""
    for number, path in shards(folder).items():
        if number > step:
            path.unlink()


def generated_tokens(folder: Path) -> int:
    """Number of completion tokens in all shards of a run, those of greedy completions included."""
    tables = (pq.read_table(path) for path in shards(folder).values())
    counts = ("token_count", "greedy_token_count")
    return sum(sum(table[name].to_pylist()) for table in tables for name in counts if name in table.column_names)


def _column(values: Float[Tensor, "batch"]) -> pa.Array:
    return pa.array(values.cpu().numpy(), pa.float32(), from_pandas=True)


@dataclass(frozen=True, kw_only=True)
class TokenValues:
    """Values per token of the N completions of a batch; None where a signal was not measured."""

    weights_BT: Float[Tensor, "batch time"]
    """(N, T), credit weights."""
    entropy_BT: Float[Tensor, "batch time"] | None = None
    """(N, T), nats."""
    perception_BT: Float[Tensor, "batch time"] | None = None
    """(N, T), sensitivity to the image, nats."""
    dominance_BT: Float[Tensor, "batch time"] | None = None
    """(N, T), modality dominance, a ratio."""
    vision: Sequence[ImageAttention | None] | None = None
    """Attention on each image token and its grid, per completion that gets a token record."""
    document: DocumentAttention | None = None
    """Attention on each document token, of at least the first completions."""


def token_values(
    signals: TokenSignals, measured: SignalBatch, credit: Credit, vision: Sequence[ImageAttention | None] | None
) -> TokenValues:
    """The weights and signals to record, without signals that `gathered_signals` filled with NaN."""
    return TokenValues(
        weights_BT=credit.weights_BT,
        entropy_BT=signals.entropy_BT,
        perception_BT=None if measured.perception_BT is None else signals.perception_BT,
        dominance_BT=None if measured.attention is None else signals.dominance_BT,
        vision=vision,
        document=measured.document,
    )


def token_records(
    rollout: Rollout, values: TokenValues, completion_ids: Sequence[list[int]], tokenizer: Any
) -> tuple[TokenRecord, ...]:
    """Token records of the first `TOKEN_GROUPS` groups.

    Args:
        rollout: the batch.
        values: its values per token.
        completion_ids: token ids, of at least the first completions.
        tokenizer: decodes them.
    """
    count = min(TOKEN_GROUPS * rollout.num_generations, len(completion_ids))
    return tuple(_token_record(index, rollout, values, completion_ids[index], tokenizer) for index in range(count))


def _token_record(index: int, rollout: Rollout, values: TokenValues, ids: list[int], tokenizer: Any) -> TokenRecord:
    attention, grid = (values.vision[index] if values.vision else None) or (None, None)
    read, attended = _document(values.document, index, tokenizer)
    return TokenRecord(
        prompt_id=rollout.prompt_ids[index],
        sample=index % rollout.num_generations,
        tokens=token_texts(tokenizer, ids),
        weight=values.weights_BT[index, : len(ids)].tolist(),
        entropy=_row(values.entropy_BT, index, len(ids)),
        perception=_row(values.perception_BT, index, len(ids)),
        dominance=_row(values.dominance_BT, index, len(ids)),
        vision_attention=attention,
        vision_grid=grid,
        document_tokens=read,
        document_attention=attended,
        advantage=rollout.advantages[index].item(),
        reward=rollout.weighted[index].nansum().item(),
        scale=None if rollout.scale is None else rollout.scale[index].item(),
    )


def _document(
    document: DocumentAttention | None, index: int, tokenizer: Any
) -> tuple[list[str] | None, list[float] | None]:
    """Text of the tokens of a completion's document, and the attention on each."""
    if document is None:
        return None, None
    ids = document.token_ids[index]
    return token_texts(tokenizer, ids), _row(document.mass_BK, index, len(ids))


def _row(values_BT: Float[Tensor, "batch time"] | None, index: int, length: int) -> list[float] | None:
    return None if values_BT is None else values_BT[index, :length].tolist()


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Text that each token adds; special tokens add none. Joined they are the text of all tokens.

    A character of several tokens belongs to the token that completes it.
    """
    texts: list[str] = tokenizer.batch_decode([[each] for each in ids], skip_special_tokens=True)
    if "".join(texts) == tokenizer.decode(ids, skip_special_tokens=True):
        return texts  # nearly always: characters of several tokens are rare
    texts = []
    start = done = 0  # tokens from `start` on are decoded together; those before `done` have their text
    for end in range(1, len(ids) + 1):
        known = tokenizer.decode(ids[start:done], skip_special_tokens=True)
        text = tokenizer.decode(ids[start:end], skip_special_tokens=True)
        if text.endswith(_INCOMPLETE) and end < len(ids):
            texts.append("")
            continue
        texts.append(text[len(known) :])
        start, done = done, end
    return texts
