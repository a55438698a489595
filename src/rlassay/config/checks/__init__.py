"""Checks that involve several sections of a study."""

from rlassay.config.checks.study import check_design, check_study

__all__ = ["check_design", "check_study"]
