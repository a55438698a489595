"""Content of a finished report for MLflow.

It has numbers of each row, views of arms and runs, notes, and the champion. MLflow stores a shared view of an
experiment in one of its tags, and opens the view whose key is in the address.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlassay.layout import REPORT_NUMBERS, Layout
from rlassay.tracking.links import ARMS_VIEW, RUNS_VIEW
from rlassay.tracking.names import ARM_LABEL, CURRENT, STAGE, legal_name

VIEW_TAG = "mlflow.sharedViewState."
"""Tag of the experiment that holds a view, before the view's key."""
OF_JOBS = ("sft", "rl", "evaluation", "report")
"""Stages of runs that are not parents; MLflow's search has no `IN` for tags."""
SUMMARY = ("effect", "effect/low", "effect/high", "p_holm")
"""Metrics of a parent run that compare it with the baseline."""
ALIAS = "champion"
"""Alias of the champion's version in MLflow's model registry."""
RUN_COLUMNS = ("entropy", "kl")
"""Metrics in a training run's row in MLflow, besides reward and held-out score; more do not fit."""
LINE: dict[str, Any] = {
    "xAxisKey": "step",
    "yAxisKey": "metric",
    "scaleType": "linear",
    "xAxisScaleType": "linear",
    "lineSmoothness": 0,
    "range": {},
    "useGlobalXaxisKey": True,
    "useGlobalLineSmoothing": True,
}
"""Settings of a chart of curves, which MLflow requires."""


class ReportNumbers:
    """Numbers and verdicts of each arm, warm start and model in `report.json`."""

    def __init__(self, layout: Layout) -> None:
        path = layout.report / REPORT_NUMBERS
        self.written = path.stat().st_mtime
        """When the report was written, unix seconds."""
        self._content: dict[str, Any] = json.loads(path.read_bytes())

    def numbers(self, kind: str, name: str) -> dict[str, float]:
        """Means over seeds with their intervals; for an arm also its effect against the baseline.

        Args:
            kind: `untrained`, `sft` or `arm`.
            name: the arm, or the id of the warm start or model.
        """
        table = self._content["tables"]["main"]
        keys = (name, kind, f"{kind}/{name}")  # a study's only warm start or model is named by its kind alone
        row = next((row for row in table["rows"] if row["kind"] == kind and row["row"] in keys), None)
        found: dict[str, float | None] = {}
        for column, cell in zip(table["columns"], row["cells"], strict=True) if row else ():
            found |= {column["key"]: cell["mean"]} | {f"{column['key']}/{end}": cell[end] for end in ("low", "high")}
            if column["primary"]:
                found |= {count: cell[count] for count in ("num_seeds", "num_items")}
        difference: dict[str, Any] = (self._verdict(name) or {}).get("difference") or {}
        found |= {key: difference[key] for key in ("effect", "p_value", "p_holm") if key in difference}
        found |= {f"effect/{end}": difference[end] for end in ("low", "high") if end in difference}
        return {key: float(value) for key, value in found.items() if value is not None}

    def views(self) -> dict[str, str]:
        """Tags of the experiment that hold the views of the arms and of their runs."""
        names, primary = shown_metrics(self._content)
        weights = [legal_name(f"reward.{name}") for name in varied_weights(self._content)]
        curves: dict[str, Any] | None = self._content.get("held_out")
        held_out = None if curves is None else f"held_out/{curves['curves'][0]['column']['key']}"
        arms = arms_view([legal_name(name) for name in names], legal_name(primary), weights)
        return {f"{VIEW_TAG}{ARMS_VIEW}": arms, f"{VIEW_TAG}{RUNS_VIEW}": runs_view(held_out)}

    def note(self, file: Path, page: str) -> str:
        """The study's answer in Markdown, with its report on disk and in MLflow."""
        return note(self._content, file, page)

    def champion(self) -> "Champion | None":
        """The run to register as a model."""
        return choose_champion(self._content)

    def weights(self, policy: str) -> str:
        """Digest of the weights that the report evaluated."""
        return next(one["sha256"] for one in self._content["policies"] if one["policy"] == policy)

    def sentence(self, arm: str) -> str | None:
        """The verdict on an arm, as a sentence; None for the baseline, warm starts and models."""
        verdict = self._verdict(arm)
        return None if verdict is None else verdict["sentence"]

    def _verdict(self, arm: str) -> dict[str, Any] | None:
        return next((verdict for verdict in self._content["verdicts"] if verdict["arm"] == arm), None)


def arms_view(metrics: Sequence[str], primary: str, weights: Sequence[str] = ()) -> str:
    """State of the view of the arms.

    It shows parent runs of the current results, best first, with their metrics. Its first chart is parallel
    coordinates: a line per arm through its reward weights to the primary metric.

    Args:
        metrics: names of the metrics to show, in the order of the columns.
        primary: the metric to sort by.
        weights: params of the reward weights that differ between arms; without any, MLflow chooses the charts.
    """
    state = _view([f"tags.`{STAGE}` != '{one}'" for one in OF_JOBS])
    state |= {
        "orderByKey": f"metrics.`{primary}`",
        "selectedColumns": ["attributes.`Description`", *_columns(metrics)],
    }
    if weights:
        lines = {"type": "PARALLEL", "selectedParams": list(weights), "selectedMetrics": [primary], "showAllRuns": True}
        state |= _charts("Reward weights", [lines], columns=1)  # narrower, the names of the axes overlap
    return json.dumps(state)


def runs_view(held_out: str | None = None) -> str:
    """State of the view of the current training runs, grouped by arm.

    The charts then show means.

    Args:
        held_out: the metric of the held-out curves; None without them.
    """
    names = ["reward", *([] if held_out is None else [legal_name(held_out)]), *RUN_COLUMNS]
    grouped = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": ARM_LABEL}]}
    lines = [{"type": "LINE", "metricKey": name, "selectedMetricKeys": [name], **LINE} for name in names]
    state = _view([f"tags.`{STAGE}` = 'rl'"]) | _charts("Training", lines, columns=2)
    return json.dumps(
        state | {"orderByKey": "attributes.`start_time`", "groupBy": grouped, "selectedColumns": _columns(names)}
    )


def _charts(section: str, charts: Sequence[Mapping[str, Any]], columns: int) -> dict[str, Any]:
    """The part of a view with a section of charts before MLflow's own sections."""
    written = {"isGenerated": False, "deleted": False}  # MLflow drops or adds generated charts as it likes
    uuid = f"rlassay-{section}"
    shared = {"metricSectionId": uuid, "runsCountToCompare": 100, **written}
    return {
        "compareRunCharts": [{**chart, "uuid": f"{uuid}-{place}", **shared} for place, chart in enumerate(charts)],
        "compareRunSections": [
            {"uuid": uuid, "name": section, "display": True, "isReordered": False, "columns": columns, **written}
        ],
        "isAccordionReordered": True,  # otherwise MLflow sorts its sections and this one by name
    }


def _columns(metrics: Sequence[str]) -> list[str]:
    return [f"metrics.`{name}`" for name in metrics]


def _view(filters: Sequence[str]) -> dict[str, Any]:
    """A view of the current results that pass the filters."""
    return {
        "searchFilter": " AND ".join([f"tags.`{CURRENT}` = 'true'", *filters]),
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
    }


def varied_weights(content: Mapping[str, Any]) -> list[str]:
    """The rewards whose weight differs between the arms of a report; a reward that an arm lacks has weight 0."""
    weights: list[dict[str, float]] = [arm["weights"] for arm in content["arms"]]
    names = dict.fromkeys(name for each in weights for name in each)
    return [name for name in names if len({each.get(name, 0.0) for each in weights}) > 1]


def shown_metrics(content: Mapping[str, Any]) -> tuple[list[str], str]:
    """The view's columns from a report: the main table's metrics, and the baseline comparison."""
    keys = [column["key"] for column in content["tables"]["main"]["columns"]]
    primary = next(column["key"] for column in content["tables"]["main"]["columns"] if column["primary"])
    return [primary, f"{primary}/low", f"{primary}/high", *SUMMARY, *(key for key in keys if key != primary)], primary


def note(content: Mapping[str, Any], file: Path, page: str) -> str:
    """The study's answer in Markdown.

    Args:
        content: the report's numbers.
        file: the page on disk.
        page: its address in MLflow.
    """
    study = content.get("study", {})
    verdicts = [f"- {verdict['sentence']}" for verdict in content["verdicts"]]
    answer = [f"**{content.get('headline') or 'Verdicts'}**", *content.get("modes_apart", ())]
    parts = [study.get("question", ""), *answer, "\n".join(verdicts)]
    return "\n\n".join([part for part in parts if part] + [f"[Report]({page}), on disk `{file}`."])


def row_note(about: str, page: str) -> str:
    """Note of a parent run: verdict or description, and the report's address in MLflow."""
    return f"{about} [Report]({page})"


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The run that was chosen, and the reason."""

    arm: str
    """The arm."""
    seed: int
    """The seed."""
    why: str
    """The reason, in two sentences."""


def choose_champion(content: Mapping[str, Any]) -> Champion | None:
    """The champion by the numbers of a complete report; None where no run of its arm has a score.

    The champion is the arm with the largest effect among those with the verdict `better` after Holm's correction, or
    the baseline if there is none. An arm whose comparison is not resolved is never the champion, however high its mean.

    Of the arm's seeds, the one whose score is nearest to the arm's mean is chosen, so that the weights are as good as
    the report states: the best seed would owe its score partly to luck on these prompts.
    """
    better = [verdict for verdict in content["verdicts"] if verdict["outcome"] == "better"]
    won = max(better, key=lambda verdict: verdict["difference"]["effect"], default=None)
    arm = content["study"]["baseline"] if won is None else won["arm"]
    table = content["tables"]["main"]
    primary = next(place for place, column in enumerate(table["columns"]) if column["primary"])
    cell = next(row["cells"][primary] for row in table["rows"] if (row["kind"], row["row"]) == ("arm", arm))
    seeds = next(one["seeds"] for one in content["arms"] if one["name"] == arm)
    scores = {seed: score for seed, score in zip(seeds, cell["by_seed"], strict=True) if score is not None}
    if not scores:
        return None
    seed = min(scores, key=lambda one: (abs(scores[one] - cell["mean"]), one))
    reason = won["sentence"] if won is not None else "No arm is known to be better than the baseline, which this is."
    near = f"{scores[seed]:.4g}, of a mean of {cell['mean']:.4g}"
    why = f"{reason} Of its seeds, seed {seed} has the score nearest to the mean: {near}."
    return Champion(arm=arm, seed=seed, why=why)
