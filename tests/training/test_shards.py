from pathlib import Path

import pyarrow.parquet as pq

from rlassay.layout import shard
from rlassay.training.rollouts import ShardWriter, drop_shards_after, generated_tokens, rollout_table
from tests.training.test_rollouts import rollout


def test_batches_of_one_step_share_its_shard_and_a_rerun_writes_the_same_bytes(tmp_path: Path):
    for folder in (tmp_path / "once", tmp_path / "again"):
        writer = ShardWriter(folder, rollout_table)
        writer(rollout(1))
        writer(rollout(1, completions=["p", "q", "r", "s"]))
        writer(rollout(2))
    assert pq.read_table(shard(tmp_path / "once", 1))["completion"].to_pylist()[3:5] == ["y", "p"]
    for step in (1, 2):
        assert shard(tmp_path / "once", step).read_bytes() == shard(tmp_path / "again", step).read_bytes()
    assert sorted(path.name for path in (tmp_path / "once").iterdir()) == ["step000001.parquet", "step000002.parquet"]
    assert generated_tokens(tmp_path / "once") == 3 * (3 + 16 + 1 + 2)


def test_a_resumed_job_drops_later_steps(tmp_path: Path):
    writer = ShardWriter(tmp_path, rollout_table)
    for step in (1, 2, 3):
        writer(rollout(step))
    drop_shards_after(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step000001.parquet", "step000002.parquet"]
    drop_shards_after(tmp_path / "nowhere", 2)
