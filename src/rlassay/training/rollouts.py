"""Every completion of every step, on disk: `state/rollouts/step<n>.parquet`."""

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from torch import Tensor

from rlassay.rewards.outcomes import FailureKind


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

    def table(self) -> pa.Table:
        """One row per completion; NaN becomes null."""
        columns: dict[str, pa.Array] = {
            "step": pa.array([self.step] * len(self.prompt_ids), pa.int32()),
            "prompt_id": pa.array(self.prompt_ids, pa.string()),
            "sample": pa.array([index % self.num_generations for index in range(len(self.prompt_ids))], pa.int32()),
            "completion": pa.array(self.completions, pa.string()),
            "token_count": pa.array(self.token_counts, pa.int32()),
            "finished": pa.array(self.finished, pa.bool_()),
            "advantage": _column(self.advantages),
            "reward": _column(self.weighted.nansum(dim=1)),
        }
        for index, name in enumerate(self.reward_names):
            columns[f"raw.{name}"] = _column(self.raw[:, index])
            columns[f"weighted.{name}"] = _column(self.weighted[:, index])
        columns |= {f"failed.{name}": pa.array(kinds, pa.string()) for name, kinds in self.failed.items()}
        return pa.table(columns)


class RolloutWriter:
    """Writes each generation batch as a shard, by rename; several batches of one step share its shard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._step = 0
        self._tables: list[pa.Table] = []

    def __call__(self, rollout: Rollout) -> None:
        if rollout.step != self._step:
            self._step, self._tables = rollout.step, []
        self._tables.append(rollout.table())
        self.folder.mkdir(parents=True, exist_ok=True)
        path = shard(self.folder, rollout.step)
        unfinished = path.with_name(f".{path.name}")
        pq.write_table(pa.concat_tables(self._tables), unfinished)
        unfinished.replace(path)


def shard(folder: Path, step: int) -> Path:
    """The shard of one step."""
    return folder / f"step{step:06d}.parquet"


def generated_tokens(folder: Path) -> int:
    """Completion tokens in all shards of a run."""
    return sum(
        sum(pq.read_table(path, columns=["token_count"])["token_count"].to_pylist())
        for path in sorted(folder.glob("step*.parquet"))
    )


def _column(values: Float[Tensor, "batch"]) -> pa.Array:
    return pa.array(values.cpu().numpy(), pa.float32(), from_pandas=True)
