"""The report stage: turns a study's results into report.json, tables, figures and page."""

from rlassay.report.run import run_report

__all__ = ["run_report"]
