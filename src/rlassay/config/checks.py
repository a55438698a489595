"""What no single section can know: rules that hold across the sections of a study."""

from rlassay.config.study import Study


def check_study(study: Study) -> list[str]:
    return []


def check_design(study: Study) -> list[str]:
    return []
