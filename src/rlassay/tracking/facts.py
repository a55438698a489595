"""Numbers and samples for MLflow that lie on disk outside of `metrics.jsonl`."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rlassay.layout import Layout

SAMPLE_ROWS = 32


def evaluation_facts(layout: Layout, folder: str, sets: Iterable[str]) -> dict[str, float]:
    """`<set>/<metric>/<mode>` -> mean over prompts of the mean over a prompt's completions; unjudged ones left out."""
    facts: dict[str, float] = {}
    for name in sets:
        scores = pq.read_table(layout.scores(folder, name), columns=["prompt_id", "mode", "metric", "value"])
        by_prompt = scores.group_by(["metric", "mode", "prompt_id"]).aggregate([("value", "mean")])
        means = by_prompt.group_by(["metric", "mode"]).aggregate([("value_mean", "mean")])
        for row in means.to_pylist():
            if row["value_mean_mean"] is not None:
                facts[f"{name}/{row['metric']}/{row['mode']}"] = row["value_mean_mean"]
    return facts


def rollout_sample(rollouts: Path) -> dict[str, Any] | None:
    """The first completions of the newest rollout shard as `{"columns", "data"}`; None while there is none."""
    newest = max(rollouts.glob("step*.parquet"), default=None)
    if newest is None:
        return None
    table = pq.read_table(newest).slice(0, SAMPLE_ROWS)
    return {
        "columns": table.column_names,
        "data": [[_shown(cell) for cell in row.values()] for row in table.to_pylist()],
    }


def _shown(cell: Any) -> Any:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell  # JSON has no NaN


class ReportFacts:
    """What `report.json` says about each arm, warm start and model."""

    def __init__(self, layout: Layout) -> None:
        path = layout.report / "report.json"
        self.written = path.stat().st_mtime
        """Unix seconds."""
        self._content: dict[str, Any] = json.loads(path.read_bytes())

    def numbers(self, kind: str, name: str) -> dict[str, float]:
        """Means over seeds with their intervals; of an arm, its effect against the baseline too.

        Args:
            kind: `untrained`, `sft` or `arm`.
            name: the arm, or the id of the warm start or model.
        """
        table = self._content["tables"]["main"]
        keys = (name, kind, f"{kind}/{name}")  # a study's only warm start or model goes by its kind alone
        row = next((row for row in table["rows"] if row["kind"] == kind and row["row"] in keys), None)
        found: dict[str, float | None] = {}
        for column, cell in zip(table["columns"], row["cells"], strict=True) if row else ():
            found |= {column["key"]: cell["mean"]} | {f"{column['key']}/{end}": cell[end] for end in ("low", "high")}
            if column["primary"]:
                found |= {count: cell[count] for count in ("num_seeds", "num_items")}
        difference = (self._verdict(name) or {}).get("difference") or {}
        found |= {key: difference[key] for key in ("effect", "p_value", "p_holm") if key in difference}
        found |= {f"effect/{end}": difference[end] for end in ("low", "high") if end in difference}
        return {key: float(value) for key, value in found.items() if value is not None}

    def sentence(self, arm: str) -> str | None:
        """The verdict on an arm; None for the baseline, and for what is no arm."""
        verdict = self._verdict(arm)
        return None if verdict is None else verdict["sentence"]

    def _verdict(self, arm: str) -> dict[str, Any] | None:
        return next((verdict for verdict in self._content["verdicts"] if verdict["arm"] == arm), None)
