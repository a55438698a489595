"""The report: from the files of a study on disk to report.json, tables, figures and page."""
