"""The report stage: turns the results of a study on disk into report.json, tables, figures and page."""

from rlassay.report.run import run_report

__all__ = ["run_report"]
