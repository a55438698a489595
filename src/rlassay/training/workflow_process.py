"""Who started a job."""

from pathlib import PurePath

import psutil


def workflow_process() -> psutil.Process | None:
    """The nearest Snakemake above this process; None for a job that was started by hand."""
    for ancestor in psutil.Process().parents():
        try:
            if any(PurePath(part).name == "snakemake" for part in ancestor.cmdline()[:3]):
                return ancestor
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    return None
