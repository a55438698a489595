"""The one config tree: sections, loading, arms, checks, fingerprints, confounds. Importing it loads no torch."""

from rlassay.config.explain import StudyError
from rlassay.config.load import expand_design, load_settings, load_study, settings_from_snakemake
from rlassay.config.settings import Settings
from rlassay.config.study import Arm, Study
from rlassay.config.training import Recipe

__all__ = [
    "Arm",
    "Recipe",
    "Settings",
    "Study",
    "StudyError",
    "expand_design",
    "load_settings",
    "load_study",
    "settings_from_snakemake",
]
