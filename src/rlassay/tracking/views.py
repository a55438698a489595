"""What a study shows in the user interface of MLflow: its arms side by side with columns of metrics, and its answer.

MLflow keeps a shared view of an experiment as a tag of it, and opens the view whose key is in the address.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlassay.tracking.links import VIEW
from rlassay.tracking.names import CURRENT, STAGE

VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""Tag of the experiment that holds the view."""
OF_JOBS = ("sft", "rl", "evaluation", "report")
"""Stages of runs that are no parents; MLflow's search has no `IN` for tags."""
SUMMARY = ("effect", "effect/low", "effect/high", "p_holm")
"""Metrics of a parent run that compare it with the baseline."""


def arms_view(metrics: Sequence[str], primary: str) -> str:
    """The state of the view: parent runs of the current results, best first, with columns of their metrics.

    Args:
        metrics: names of the metrics to show, in the order of the columns.
        primary: the metric to sort by.
    """
    state: dict[str, Any] = {
        "searchFilter": " AND ".join(
            [f"tags.`{CURRENT}` = 'true'", *(f"tags.`{STAGE}` != '{one}'" for one in OF_JOBS)]
        ),
        "orderByKey": f"metrics.`{primary}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": ["attributes.`Description`", *(f"metrics.`{name}`" for name in metrics)],
    }
    return json.dumps(state)


def shown_metrics(content: Mapping[str, Any]) -> tuple[list[str], str]:
    """Columns of the view from a report: the main table's metrics, and the comparison with the baseline."""
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
    parts = [study.get("question", ""), f"**{content.get('headline') or 'Verdicts'}**", "\n".join(verdicts)]
    return "\n\n".join([part for part in parts if part] + [f"[Report]({page}), on disk `{file}`."])


def row_note(about: str, page: str) -> str:
    """What a parent run says: its verdict or what it is, and the report's address in MLflow."""
    return f"{about} [Report]({page})"
