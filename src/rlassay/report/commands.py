"""Shell commands that make a file of a study, or make it again."""

from pathlib import Path

from rlassay.config.settings import Settings


class Commands:
    """Snakemake commands for one study, at one scale, in one results folder."""

    def __init__(self, settings: Settings) -> None:
        config = {"study": settings.study, "scale": settings.scale}
        config |= {"results": settings.results} if settings.results != "results" else {}
        self._config = " ".join(f"{key}={value}" for key, value in config.items() if value is not None)

    def make(self, path: Path) -> str:
        """Make a missing file and every file that it needs."""
        return f"snakemake --cores all {path.as_posix()} --config {self._config}"

    def remake(self, path: Path) -> str:
        """Make a file again (a training from step 0), and every file that depends on it."""
        return f"snakemake --cores all -R {path.as_posix()} --config {self._config}"

    def report(self) -> str:
        """Make the report and every file that it lacks."""
        return f"snakemake --cores all ablation_report --config {self._config}"
