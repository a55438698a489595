from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from rlassay.training.rollouts import (
    Rollout,
    ShardWriter,
    drop_shards_after,
    generated_tokens,
    rollout_table,
    shard,
)

NAN = float("nan")


def rollout(step: int, **changes: Any) -> Rollout:
    """Two groups of two; the second reward could not score one completion, and its weight is 0."""
    content: dict[str, Any] = {
        "step": step,
        "num_generations": 2,
        "prompt_ids": ["a", "a", "b", "b"],
        "completions": ["x", "<think>é\n", "", "y"],
        "token_counts": [3, 16, 1, 2],
        "finished": [True, False, True, True],
        "reward_names": ["accuracy", "length"],
        "raw": torch.tensor([[1.0, 0.5], [0.0, NAN], [0.0, 1.0], [1.0, 2.0]]),
        "weighted": torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0], [2.0, 0.0]]),
        "advantages": torch.tensor([0.5, -0.5, -1.0, 1.0]),
    }
    return Rollout(**content | changes)


def test_a_shard_has_one_row_per_completion(tmp_path: Path):
    ShardWriter(tmp_path, rollout_table)(rollout(3))
    rows = pq.read_table(tmp_path / "step000003.parquet").to_pylist()
    assert rows[1] == {
        "step": 3,
        "prompt_id": "a",
        "sample": 1,
        "completion": "<think>é\n",
        "token_count": 16,
        "finished": False,
        "advantage": -0.5,
        "reward": 0.0,
        "raw.accuracy": 0.0,
        "weighted.accuracy": 0.0,
        "raw.length": None,
        "weighted.length": 0.0,
    }
    assert [row["sample"] for row in rows] == [0, 1, 0, 1]
    assert [row["reward"] for row in rows] == [2.0, 0.0, 0.0, 2.0]


def test_signals_and_scale_are_columns_of_their_own_and_nan_is_null():
    signals = {"modality_dominance/late": torch.tensor([2.0, NAN, 0.5, 1.0])}
    table = rollout_table(rollout(1, signals=signals, scale=torch.tensor([1.0, 0.75, 1.25, 1.0])))
    assert table["signal.modality_dominance/late"].to_pylist() == [2.0, None, 0.5, 1.0]
    assert table["scale"].to_pylist() == [1.0, 0.75, 1.25, 1.0]
    assert "scale" not in rollout_table(rollout(1)).column_names


def test_no_shards_are_no_tokens(tmp_path: Path):
    assert generated_tokens(tmp_path / "nowhere") == 0


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
