"""Numbers from score files and from the report, and samples of rollouts."""

from pathlib import Path

import pandas as pd

from rlassay.layout import Layout
from rlassay.tracking.facts import evaluation_facts, rollout_sample


def test_an_evaluation_is_the_mean_over_prompts(tmp_path: Path) -> None:
    layout = Layout(root=tmp_path)
    path = layout.scores("runs/a/seed1", "test")
    path.parent.mkdir(parents=True)
    rows = [
        ("p", "sampled", "accuracy", 1.0),
        ("p", "sampled", "accuracy", None),  # not judged: p counts with 1.0
        ("q", "sampled", "accuracy", 0.0),
        ("q", "sampled", "accuracy", 0.5),
        ("r", "sampled", "accuracy", None),  # not judged at all: does not count
        ("p", "greedy", "accuracy", 0.0),
        ("p", "greedy", "rouge", None),
    ]
    pd.DataFrame(rows, columns=["prompt_id", "mode", "metric", "value"]).to_parquet(path, index=False)
    # (1.0 + 0.25) / 2
    facts = evaluation_facts(layout, "runs/a/seed1", ["test"])
    assert facts == {"test/accuracy/sampled": 0.625, "test/accuracy/greedy": 0.0}


def test_the_sample_is_the_head_of_the_newest_shard(tmp_path: Path) -> None:
    assert rollout_sample(tmp_path / "none") is None
    for step in (9, 10):
        frame = pd.DataFrame({"step": step, "reward": [0.5, float("nan")] * 30})
        frame.to_parquet(tmp_path / f"step{step:06}.parquet", index=False)
    sample = rollout_sample(tmp_path)
    assert sample is not None
    assert sample["columns"] == ["step", "reward"]
    assert sample["data"] == [[10, 0.5], [10, None]] * 16
