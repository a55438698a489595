"""The shell lines that make a file of the study, or make it again."""

from pathlib import Path

from rlassay.config.settings import Settings


class Commands:
    """Snakemake commands for one study, at one scale, in one results folder."""

    def __init__(self, settings: Settings) -> None:
        where = {"study": settings.study, "scale": settings.scale}
        where |= {"results": settings.results} if settings.results != "results" else {}
        self._config = " ".join(f"{key}={value}" for key, value in where.items() if value is not None)

    def make(self, path: Path) -> str:
        """Make a file that is missing, and what it needs."""
        return f"snakemake --cores all {path.as_posix()} --config {self._config}"

    def again(self, path: Path) -> str:
        """Make a file afresh (a training from step 0), and everything that follows from it."""
        return f"snakemake --cores all -R {path.as_posix()} --config {self._config}"

    def report(self) -> str:
        """Make the report and whatever it lacks."""
        return f"snakemake --cores all ablation_report --config {self._config}"
