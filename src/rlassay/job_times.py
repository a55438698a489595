"""Times of finished jobs, from the benchmark files that Snakemake writes."""

from pathlib import Path


def note_wait(benchmark: Path, seconds: float) -> None:
    """Record how long a job waited for its GPUs, which Snakemake counts as its time.

    A wait of less than a second leaves no file, and removes that of an earlier attempt.
    """
    file = _wait(benchmark)
    if seconds < 1:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{seconds:.1f}\n", encoding="utf-8")


def job_seconds(path: Path) -> float | None:
    """The seconds that a job worked, without its wait for GPUs; None without a benchmark file."""
    try:
        seconds = float(path.read_text(encoding="utf-8").splitlines()[1].split("\t")[0])
        waited = float(file.read_text(encoding="utf-8")) if (file := _wait(path)).exists() else 0.0
    except (OSError, IndexError, ValueError):
        return None
    return max(0.0, seconds - waited)


def _wait(benchmark: Path) -> Path:
    return benchmark.with_suffix(".waited")
