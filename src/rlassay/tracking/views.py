"""Links into the user interface of MLflow: the arms of a study side by side, with columns of its metrics.

MLflow keeps a shared view of an experiment as a tag of it, and opens the view whose key is in the address.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlassay.files import read_json, write_json
from rlassay.tracking.names import CURRENT, STAGE

VIEW = "rlassay-arms"
"""Key of the shared view."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
LOCAL = "http://127.0.0.1:5000"
"""Where plain `mlflow ui` shows a local store."""
LINK = "link.json"
"""File in the study's tracking folder that holds the link."""
OF_JOBS = ("sft", "rl", "evaluation", "report")
"""Stages of runs that are no parents; MLflow's search has no `IN` for tags."""
SUMMARY = ("effect", "effect/low", "effect/high", "p_holm")
"""Metrics of a parent run that compare it with the baseline."""


def arms_link(uri: str, experiment: str) -> str:
    """The address of the study's arms side by side; for a local store, where `mlflow ui` shows it."""
    base = uri.rstrip("/") if uri.startswith("http") else LOCAL
    return f"{base}/#/experiments/{experiment}/runs?viewStateShareKey={VIEW}"


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


def note(content: Mapping[str, Any], page: Path) -> str:
    """The study's answer in Markdown, with the place of its report."""
    study = content.get("study", {})
    verdicts = [f"- {verdict['sentence']}" for verdict in content["verdicts"]]
    parts = [study.get("question", ""), f"**{content.get('headline') or 'Verdicts'}**", "\n".join(verdicts)]
    return "\n\n".join(
        [part for part in parts if part] + [f"Report: `{page}`, and the artifact `report` of the run “report”."]
    )


def read_link(folder: Path) -> str | None:
    """The link that the last report of a study left in its tracking folder; None before."""
    return (read_json(folder / LINK) or {}).get("arms")


def keep_link(folder: Path, link: str) -> None:
    """Write the link where `read_link` finds it without loading MLflow."""
    write_json(folder / LINK, {"arms": link})
