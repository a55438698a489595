"""Checks between the sections of a study: what no single section can know."""

from rlassay.config.checks.study import check_design, check_study

__all__ = ["check_design", "check_study"]
