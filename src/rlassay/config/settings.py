"""`config/config.yaml`: which study to run, and settings that do not change its results."""

from pydantic import Field

from rlassay.config.section import Section


class Tracking(Section):
    """MLflow."""

    enabled: bool = True
    """Whether runs are fed to MLflow; the files on disk are complete either way."""
    uri: str = "sqlite:///mlflow.db"
    """Tracking URI; the default is the store that plain `mlflow ui` opens."""
    interval: float = Field(default=5.0, gt=0)
    """Seconds between two batches."""


class ReportSettings(Section):
    """What the page shows."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the intervals."""
    examples: int = Field(default=6, ge=0)
    """Prompts shown side by side for all arms."""


class Resources(Section):
    """What the jobs may use."""

    threads: int = Field(default=1, ge=1)
    """CPU threads of each training or generation job; Snakemake runs cores/threads jobs at once."""


class Settings(Section):
    """The whole of `config/config.yaml`."""

    study: str = "digits"
    """Name of a file in `config/studies/`, or a path."""
    scale: str | None = None
    """Name of an overlay in `config/scales/`; null runs the study as written."""
    results: str = "results"
    """Folder that receives everything."""
    tracking: Tracking = Tracking()
    """MLflow."""
    report: ReportSettings = ReportSettings()
    """What the page shows."""
    resources: Resources = Resources()
    """What the jobs may use."""
