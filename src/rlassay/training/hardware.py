"""What the machine gives a job, and how much of it the job took."""

import resource
import sys

from rlassay.training.refused import RefusedError

BYTES_PER_MB = 2**20


def require_gpus(declared: int) -> None:
    """Refuse to train with fewer GPUs than the study declares; Snakemake scales requests down without a word.

    Errors: RefusedError naming both counts.
    """
    import torch

    visible = torch.cuda.device_count()
    if visible < declared:
        raise RefusedError(
            f"the study declares gpus: {declared}, but this job sees {visible}. Raise the cap "
            "(`resources: gpu=` in profiles/default/profile.yaml), free a device, or lower `gpus` in the study."
        )


def peak_memory_mb() -> float:
    """Peak memory of this process in MiB: of all its GPUs where it used any, otherwise resident memory."""
    import torch

    on_gpus = sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))
    if on_gpus:
        return on_gpus / BYTES_PER_MB
    # Linux counts kibibytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / BYTES_PER_MB
