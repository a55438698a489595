"""Run directories as training jobs leave them, written without training."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rlassay.config.data import Jsonl
from rlassay.config.engine import Evaluation
from rlassay.config.model import TinyVLM
from rlassay.config.policies import Policy, policies
from rlassay.config.study import Arm, Primary, Study
from rlassay.config.training import Recipe, RewardConfig, RLConfig, SFTConfig
from rlassay.files import write_json
from rlassay.layout import Layout
from rlassay.progress import read_progress
from rlassay.records import PromptRow, write_rows

START = 1_700_000_000.0  # unix seconds
STEPS = 6


def small_study(arms: Iterable[str] = ("base", "plain"), seeds: tuple[int, ...] = (1,), **rewards: float) -> Study:
    """Arms that differ in the weight of `format`; `rewards` are added to the first."""
    weights = {arm: {"accuracy": 1.0, "format": 0.5 * (place == 0)} for place, arm in enumerate(arms)}
    weights[next(iter(weights))] |= rewards
    return Study(
        name="small",
        title="Small",
        question="Does it reach MLflow?",
        seeds=seeds,
        data=Jsonl(kind="jsonl", folder="rows", splits={"sft": 4, "train": 3, "test": 2}),
        evaluation=Evaluation(num_samples=2, max_completion_length=16),
        primary=Primary(metric="accuracy"),
        baseline=next(iter(weights)),
        family=(),
        arms={arm: Arm(label=arm, recipe=_recipe(weights[arm])) for arm in weights},
    )


def _recipe(weights: dict[str, float]) -> Recipe:
    return Recipe(
        model=TinyVLM(kind="tiny_vlm"),
        sft=SFTConfig(max_steps=4, learning_rate=2e-3, per_device_train_batch_size=16),
        rl=RLConfig(max_steps=STEPS, learning_rate=2e-4, max_completion_length=16, per_device_train_batch_size=16),
        rewards={name: RewardConfig(weight=weight) for name, weight in weights.items()},
    )


def write_data(study: Study, layout: Layout) -> None:
    """The rows of every split."""
    for split, count in study.data.splits.items():
        rows = [PromptRow(prompt_id=f"{split}{n}", question="q", answer="a") for n in range(count or 0)]
        write_rows(layout.split(split), rows)


@dataclass
class FakeJob:
    """The files of one training job, at any point of its life."""

    study: Study
    layout: Layout
    policy: Policy

    @classmethod
    def of(cls, study: Study, layout: Layout, folder: str) -> "FakeJob":
        """The job that trains the policy in `folder`."""
        return cls(study, layout, policies(study)[folder])

    def note(
        self, status: str, attempts: Iterable[tuple[int, float, float | None]] = (), error: str | None = None
    ) -> None:
        """Write `run.json`; `attempts`: first step, start and end in seconds after START."""
        found = [
            {"step": step, "started": START + started, "ended": None if ended is None else START + ended}
            for step, started, ended in (attempts or [(0, 0.0, None if status == "running" else 100.0)])
        ]
        content = {"policy": self.policy.folder, "stage": self.policy.stage, "max_steps": STEPS, "status": status}
        content |= {"fingerprint": self.policy.fingerprint, "attempts": found, "error": error, "pid": os.getpid()}
        state = self.layout.state(self.policy.folder)
        state.mkdir(parents=True, exist_ok=True)
        unfinished = state / ".run.json"
        unfinished.write_text(json.dumps(content))
        unfinished.replace(state / "run.json")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A live process holds the run directory meanwhile."""
        code = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); input()"
        command = [sys.executable, "-c", code, str(self.layout.state(self.policy.folder) / "lock")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            yield
            holder.communicate("\n")

    def log(self, steps: Iterable[int], at: float = 0.0, **values: Any) -> None:
        """Append a line per step; step k was logged k seconds after `at`."""
        with self.layout.metrics(self.policy.folder).open("a") as out:
            for step in steps:
                out.write(json.dumps(line(step, at) | values) + "\n")

    def cut_back(self, step: int) -> None:
        """Drop the lines after `step`, by rename, as a resumed job does."""
        path = self.layout.metrics(self.policy.folder)
        kept = [text for text in path.read_text().splitlines(keepends=True) if json.loads(text)["step"] <= step]
        unfinished = path.with_name(".metrics")
        unfinished.write_text("".join(kept))
        unfinished.replace(path)

    def roll_out(self, step: int, rows: int = 3) -> None:
        """Write one rollout shard."""
        folder = self.layout.rollouts(self.policy.folder)
        folder.mkdir(exist_ok=True)
        answers = {"sample": range(rows), "completion": "<script>", "token_count": 5}
        values = {"reward": [0.5, None, 1.0][:rows], "raw.accuracy": 1.0, "weighted.accuracy": 1.0, "advantage": 0.25}
        frame = pd.DataFrame({"step": step, "prompt_id": "train1"} | answers | values)
        frame.to_parquet(folder / f"step{step:06}.parquet", index=False)

    def write_manifest(self) -> None:
        """Write the manifest of a finished training."""
        self.layout.train_manifest(self.policy.folder, self.policy.stage).write_text("{}")

    def score(self, **means: float | None) -> None:
        """Write completions and scores of the test set: two prompts, two completions each; None gives no score."""
        rows = [
            {"prompt_id": prompt, "mode": "sampled", "sample": sample, "metric": metric, "value": value}
            for metric, value in means.items()
            for prompt in ("p", "q")
            for sample in range(2)
        ]
        scores = self.layout.scores(self.policy.folder, "test")
        scores.parent.mkdir(parents=True, exist_ok=True)
        self.layout.completions(self.policy.folder, "test").touch()
        pd.DataFrame(rows).astype({"value": float}).to_parquet(scores, index=False)


def line(step: int, at: float = 0.0) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    return {"step": step, "time": START + at + step, "reward": step / 10, "pass@1": step / 100, "grad_norm": None}


def small_folder(root: Path, study: Study) -> Layout:
    """A results folder with the rows of every split."""
    layout = Layout(root=root / study.id)
    write_data(study, layout)
    return layout


def keep_curve(job: FakeJob, split: str, scores: dict[int, float | None]) -> None:
    """The record of a held-out curve whose points are scored 10 s after one another."""
    progress = read_progress(job.layout, job.policy.folder)
    assert progress is not None
    points = [{"step": step, "score": score, "time": START + 10 * step} for step, score in scores.items()]
    write_json(job.layout.curve_record(job.policy.folder, split), {"training": progress.identity, "points": points})
