"""Where every file of a study lies: the one place that spells the paths below `results/`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Paths of one study at one scale.

    A *policy* is a folder, relative to `root`, that holds weights to evaluate: `runs/<arm>/seed<k>` (a trained arm),
    `sft/<id>` or `sft/<id>/seed<k>` (a warm start), `models/<id>` (the model before any training).
    """

    root: Path
    """`results/<study>` or `results/<study>-<scale>`."""

    @property
    def data(self) -> Path:
        """Folder of the `<split>.jsonl` files and of the images they name."""
        return self.root / "data"

    @property
    def data_manifest(self) -> Path:
        """Written last by the data stage: counts and refusals per split."""
        return self.data / "data.json"

    @property
    def data_parts(self) -> Path:
        """What a data stage has done so far; undeclared, so that it survives kills, and gone once it has finished."""
        return self.data / ".unfinished"

    def split(self, name: str) -> Path:
        """The rows of one split."""
        return self.data / f"{name}.jsonl"

    def run(self, arm: str, seed: int) -> str:
        """The policy folder of one arm and seed, relative to the root."""
        return f"runs/{arm}/seed{seed}"

    def state(self, policy: str) -> Path:
        """Undeclared working folder of a training job; it survives failures and kills."""
        return self.root / policy / "state"

    def metrics(self, policy: str) -> Path:
        """One JSON object per logged step."""
        return self.state(policy) / "metrics.jsonl"

    def rollouts(self, policy: str) -> Path:
        """Folder of `step<n>.parquet`, every completion of every step."""
        return self.state(policy) / "rollouts"

    def tokens(self, policy: str) -> Path:
        """Folder of `step<n>.parquet`, the watched completions of every step, token by token."""
        return self.state(policy) / "tokens"

    def train_manifest(self, policy: str) -> Path:
        """Written last by a training job: `train.json` of an arm, `sft.json` of a warm start."""
        return self.root / policy / ("train.json" if policy.startswith("runs/") else "sft.json")

    def completions(self, policy: str, split: str) -> Path:
        """The completions of one policy on one evaluation set."""
        return self.root / policy / "eval" / f"{split}.completions.jsonl"

    def scores(self, policy: str, split: str) -> Path:
        """The scores of those completions."""
        return self.root / policy / "eval" / f"{split}.scores.parquet"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.root / "report"

    @property
    def partial_report(self) -> Path:
        """Folder of a report on what is finished so far; in `report`, Snakemake would take it for the whole one."""
        return self.root / "partial_report"

    @property
    def tracking(self) -> Path:
        """Folder of the locks under which jobs write to MLflow."""
        return self.root / ".mlflow"
