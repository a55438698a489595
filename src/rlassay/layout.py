"""Paths of a study's files below `results/`; no other module contains their names."""

from dataclasses import dataclass
from pathlib import Path

MANIFESTS = {"rl": "train.json", "sft": "sft.json"}
"""By the stage that trained a policy: name of the manifest, which training writes last."""
# Names in the `state/` folder of a training job.
RUN_RECORD = "run.json"
LOCK = "lock"
COMPLETE = "COMPLETE"
CHECKPOINTS = "checkpoints"
INTERMEDIATE = "intermediate"
WEIGHTS = "weights"
WEIGHT_FILES = "*.safetensors"
CHECKPOINT_MANIFEST = "manifest.json"
# Names in a report folder.
PAGE = "index.html"
REPORT_TEXT = "report.md"
REPORT_NUMBERS = "report.json"
FIGURES = "figures"
TABLES = "tables"
COMPLETIONS_PAGE = "completions.html"
COMPLETIONS_DATA = "completions"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Paths of one study at one scale.

    A policy is named by its folder relative to `root`: `runs/<arm>/seed<k>` (trained by RL), `sft/<id>` or
    `sft/<id>/seed<k>` (a warm start), `models/<id>` (the model before any training), `references/<name>/<id>`.
    """

    root: Path
    """`results/<study>` or `results/<study>-<scale>`."""

    @staticmethod
    def run(arm: str, seed: int | None = None) -> str:
        """The folder of a run relative to the root; without a seed, that of all runs of the arm."""
        return _with_seed(f"runs/{arm}", seed)

    @staticmethod
    def warm_start(fingerprint: str, seed: int | None = None) -> str:
        """The folder of a warm start relative to the root; without a seed, of all seeds or a shared one."""
        return _with_seed(f"sft/{fingerprint}", seed)

    @staticmethod
    def untrained(fingerprint: str) -> str:
        """The folder of a model before any training, relative to the root."""
        return f"models/{fingerprint}"

    @staticmethod
    def reference(name: str, fingerprint: str) -> str:
        """The folder of a model that the study names under `references`, relative to the root."""
        return f"references/{name}/{fingerprint}"

    @property
    def data(self) -> Path:
        """Folder of the `<split>.jsonl` files and of the images they name."""
        return self.root / "data"

    @property
    def data_manifest(self) -> Path:
        """Written last by the data stage: counts and rejections per split."""
        return self.data / "data.json"

    @property
    def data_parts(self) -> Path:
        """Unfinished work of the data stage. Snakemake does not know it, so it survives a kill."""
        return self.data / ".unfinished"

    def split(self, name: str) -> Path:
        """The rows of one split."""
        return self.data / f"{name}.jsonl"

    def split_part(self, name: str) -> Path:
        """The rows of one split until all splits are finished."""
        return self.data_parts / f"{name}.jsonl"

    def split_journal(self, name: str) -> Path:
        """The records of one split that are done, for a data stage that resumes."""
        return self.data_parts / f"{name}.journal"

    def splits(self) -> list[Path]:
        """The split files that exist, those of earlier studies included."""
        return sorted(self.data.glob("*.jsonl"))

    def state(self, policy: str) -> Path:
        """Working folder of a training job. Snakemake does not know it, so it survives failures and kills."""
        return self.root / policy / "state"

    def run_record(self, policy: str) -> Path:
        """Status and attempts of a training job."""
        return self.state(policy) / RUN_RECORD

    def metrics(self, policy: str) -> Path:
        """One JSON object per logged step."""
        return self.state(policy) / "metrics.jsonl"

    def rollouts(self, policy: str) -> Path:
        """Folder of shards: every completion of every step."""
        return self.state(policy) / "rollouts"

    def tokens(self, policy: str) -> Path:
        """Folder of shards: the watched completions of every step, token by token."""
        return self.state(policy) / "tokens"

    def intermediate(self, policy: str) -> Path:
        """Folder of weights in the middle of training, which wait to be evaluated: `checkpoint-<step>/`."""
        return self.state(policy) / INTERMEDIATE

    def train_manifest(self, policy: str, stage: str = "rl") -> Path:
        """Written last by a training job; `stage` is `rl` for a run, `sft` for a warm start."""
        return self.root / policy / MANIFESTS[stage]

    def failure(self, stage: str, policy: str | None = None, split: str | None = None) -> Path:
        """The note that a failed job leaves beside its log."""
        name = stage if split is None else f"{stage}-{split}"
        return self.root.joinpath("logs", *([] if policy is None else [policy]), f"{name}.failed.json")

    def completions(self, policy: str, split: str) -> Path:
        """The completions of one policy on one evaluation set."""
        return self.root / policy / "eval" / f"{split}.completions.jsonl"

    def sampler(self, policy: str, split: str) -> Path:
        """The library that sampled those completions: `{"engine", "versions": {library: version}}`."""
        return self.root / policy / "eval" / f"{split}.sampler.json"

    def completions_part(self, policy: str, split: str) -> Path:
        """The completions that an unfinished job has written."""
        return self.root / policy / "eval" / f".{split}.partial.jsonl"

    def scores(self, policy: str, split: str) -> Path:
        """The scores of those completions."""
        return self.root / policy / "eval" / f"{split}.scores.parquet"

    def curve(self, policy: str, split: str) -> Path:
        """The scores of one run in the middle of its training, by step."""
        return self.root / policy / "curve" / f"{split}.scores.parquet"

    def curve_record(self, policy: str, split: str) -> Path:
        """The evaluated steps, their mean scores, and the identities of both; see `evaluation.curve`."""
        return self.root / policy / "curve" / f"{split}.json"

    def curve_completions(self, policy: str, split: str, step: int) -> Path:
        """The completions of one run at one step in the middle of its training."""
        return self.root / policy / "curve" / f"{split}.step{step:06d}.completions.jsonl"

    def curve_scores(self, policy: str, split: str, step: int) -> Path:
        """The scores of one run at one step in the middle of its training."""
        return self.root / policy / "curve" / f"{split}.step{step:06d}.scores.parquet"

    def curve_part(self, policy: str, split: str) -> Path:
        """The completions that an unfinished job has written."""
        return self.root / policy / "curve" / f".{split}.partial.jsonl"

    def benchmark(self, policy: str, job: str) -> Path:
        """Snakemake's measurements of one job of a policy, such as `generate-test`."""
        return self.root / "benchmarks" / policy / f"{job}.tsv"

    def decision(self, look: int | str) -> Path:
        """The decision of a look at sequential seeds; looks count from 1."""
        return self.root / "looks" / f"look{look}.json"

    def rounds_reported(self, fingerprint: str) -> Path:
        """An empty file beside the decisions.

        It says that the report has been written for this declaration of rounds.
        """
        return self.root / "looks" / f"reported-{fingerprint}"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.root / "report"

    @property
    def partial_report(self) -> Path:
        """Folder of a report on unfinished results; in `report`, Snakemake would take it for the complete one."""
        return self.root / "partial_report"

    @property
    def tracking(self) -> Path:
        """Folder of the locks under which jobs write to MLflow."""
        return self.root / ".mlflow"


def results_name(study: str, scale: str | None, engine: str | None) -> str:
    """Name of a study's results folder: `<study>[-<scale>][-<engine>]`."""
    return "-".join(part for part in (study, scale, engine) if part is not None)


def shard(folder: Path, step: int) -> Path:
    """The shard of one step in a folder of rollouts or tokens."""
    return folder / f"step{step:06d}.parquet"


def shards(folder: Path) -> dict[int, Path]:
    """Step -> its shard, ascending; empty for a folder without any."""
    return {int(path.stem.removeprefix("step")): path for path in sorted(folder.glob("step*.parquet"))}


def checkpoint(folder: Path, step: int) -> Path:
    """The checkpoint of one step, as transformers names it."""
    return folder / f"checkpoint-{step}"


def checkpoints(folder: Path) -> dict[int, Path]:
    """Step -> its checkpoint, ascending."""
    found = {checkpoint_step(path): path for path in folder.glob("checkpoint-*")}
    return dict(sorted(found.items()))


def checkpoint_step(path: Path) -> int:
    """Optimiser steps done at a checkpoint."""
    return int(path.name.removeprefix("checkpoint-"))


def _with_seed(stem: str, seed: int | None) -> str:
    return stem if seed is None else f"{stem}/seed{seed}"
