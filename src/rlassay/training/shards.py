"""Files of one step each, `step<n>.parquet`, that a training job writes while it goes on."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rlassay.files import replacing
from rlassay.training.rollouts import Rollout


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


def shard(folder: Path, step: int) -> Path:
    """The shard of one step."""
    return folder / f"step{step:06d}.parquet"


def drop_shards_after(folder: Path, step: int) -> None:
    """Remove the shards of later steps, which a resumed job writes again."""
    for path in folder.glob("step*.parquet"):
        if int(path.stem.removeprefix("step")) > step:
            path.unlink()
