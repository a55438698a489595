"""Times of finished jobs, from the benchmark files that Snakemake writes."""

from pathlib import Path


def job_seconds(path: Path) -> float | None:
    """The seconds that a job took; None without a benchmark file that states them."""
    try:
        return float(path.read_text(encoding="utf-8").splitlines()[1].split("\t")[0])
    except (OSError, IndexError, ValueError):
        return None
