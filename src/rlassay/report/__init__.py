"""The report stage: from the results of a study on disk to report.json, tables, figures and page."""

from rlassay.report.run import run_report

__all__ = ["run_report"]
