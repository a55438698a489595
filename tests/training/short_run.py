"""An RL run of eight steps of a quarter of a second each, from a warm start, as a study file and as results."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rlassay.config import Study, load_study
from rlassay.config.policies import Policy, policies
from rlassay.layout import Layout
from tests.config.studies import content, write
from tests.evaluation.tiny import write_data

RUN = "runs/base/seed1"
MAX_STEPS = 8
SAVE_STEPS = 2
SHORT: dict[str, Any] = {
    "model": {"kind": "tiny_vlm", "layers": 1, "width": 32, "vision_layers": 1, "vision_width": 16, "vocab_size": 300},
    "sft__max_steps": 2,
    "sft__per_device_train_batch_size": 4,
    "rl__max_steps": MAX_STEPS,
    "rl__save_steps": SAVE_STEPS,
    "rl__learning_rate": 1e-2,
    "rl__per_device_train_batch_size": 8,
    "rl__num_generations": 4,
    "rl__max_completion_length": 10,
    # An almost untrained model never answers rightly, but it sometimes stops early: here that pays.
    "rewards__soft_overlong": {"weight": 1.0, "options": {"max_completion_length": 10, "cache": 8}},
}


def write_study(folder: Path, **edits: Any) -> Path:
    """The study's file in `folder`, and settings that switch MLflow off."""
    write(folder / "config.yaml", {"study": "digits", "tracking": {"enabled": False}})
    return write(folder / "digits.yaml", content(**SHORT | edits))


def load_short(folder: Path, **edits: Any) -> Study:
    """The resolved study; its file is in `folder`."""
    return load_study(write_study(folder, **edits))


def policy_of(study: Study, folder: str = RUN) -> Policy:
    """A run of the study."""
    return policies(study)[folder]


def command(folder: Path, results: Path, run: str = RUN) -> list[str]:
    """The arguments of `rl_train` for the study in `folder`."""
    where = ["--study", str(folder / "digits.yaml"), "--config", str(folder / "config.yaml"), "--results", str(results)]
    return [*where, "--policy", run]


def fresh_layout(results: Path) -> Layout:
    """The study's results after the data stage."""
    layout = Layout(root=results / "digits")
    write_data(layout)
    return layout


def proof(layout: Layout, run: str = RUN) -> dict[str, Any]:
    """The run's `train.json`."""
    return json.loads(layout.train_manifest(run).read_text())


def timeless_metrics(layout: Layout, run: str = RUN) -> list[dict[str, Any]]:
    """The run's metrics without times."""
    lines = [json.loads(line) for line in layout.metrics(run).read_text().splitlines()]
    return [{name: value for name, value in line.items() if not _is_time(name)} for line in lines]


def rollouts(layout: Layout, run: str = RUN) -> list[dict[str, Any]]:
    """All rows of the run's rollouts."""
    shards = sorted(layout.rollouts(run).glob("*.parquet"))
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


def steps_logged(layout: Layout) -> int:
    """The last step in the metrics of a run that may be writing them."""
    path = layout.metrics(RUN)
    return path.read_bytes().count(b"\n") if path.exists() else 0


def has_logged(layout: Layout, step: int) -> bool:
    """Whether the run has reached `step`."""
    return steps_logged(layout) >= step


def _is_time(name: str) -> bool:
    return name in ("time", "step_time") or name.startswith("time/")
