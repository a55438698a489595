"""The shell lines that make a file of the study, or make it again."""

import shlex
from pathlib import Path

from rlassay.config.load import snakemake_config
from rlassay.config.settings import Settings


class Commands:
    """Snakemake commands for one study, at one scale, in one results folder."""

    def __init__(self, settings: Settings) -> None:
        usual = {"scale": "null", "results": "results"}
        self._config = shlex.join(snakemake_config(settings, leave_out=usual))

    def make(self, path: Path) -> str:
        """Make a file that is missing, and what it needs."""
        return f"snakemake --cores all {shlex.quote(path.as_posix())} --config {self._config}"

    def again(self, path: Path) -> str:
        """Make a file afresh (a training from step 0), and everything that follows from it."""
        return f"snakemake --cores all -R {shlex.quote(path.as_posix())} --config {self._config}"

    def report(self) -> str:
        """Make the report and whatever it lacks."""
        return f"snakemake --cores all ablation_report --config {self._config}"
