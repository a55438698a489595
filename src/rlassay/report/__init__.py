"""The report: from the files of a study on disk to report.json, tables, figures and page."""

from rlassay.report.run import run_report

__all__ = ["run_report"]
