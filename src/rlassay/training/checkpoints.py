"""Seal checkpoints with manifests, and find the newest sound one to resume from.

transformers writes a checkpoint file by file, so a kill or a full disk can leave half of one. A checkpoint counts only
with a manifest, written last and by rename, whose sizes and digests still hold.
"""

import logging
import shutil
from pathlib import Path

from rlassay.files import read_json, sha256, write_json
from rlassay.layout import CHECKPOINT_MANIFEST, checkpoints

logger = logging.getLogger(__name__)


def seal(checkpoint: Path) -> None:
    """Declare a checkpoint whole: write the manifest of its files."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != CHECKPOINT_MANIFEST)
    write_json(
        checkpoint / CHECKPOINT_MANIFEST,
        {str(path.relative_to(checkpoint)): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files},
    )


def flaw(checkpoint: Path) -> str | None:
    """The defect of a checkpoint, in words; None when it is sound."""
    manifest = read_json(checkpoint / CHECKPOINT_MANIFEST)
    if not manifest:
        return "it has no readable manifest, so it was never finished"
    for name, expected in manifest.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, expected {expected['bytes']}"
        if sha256(path) != expected["sha256"]:
            return f"{name} has changed since it was written"
    return None


def newest_sound(folder: Path, max_steps: int) -> str | None:
    """Path of the newest sound checkpoint in `folder`; broken ones are reported and removed.

    The checkpoint of the last step, `max_steps`, is removed silently: resumed from there in the middle of an epoch,
    `Trainer` would do one step too many before it checks whether to stop.
    """
    for step, checkpoint in reversed(checkpoints(folder).items()):
        if step >= max_steps:
            shutil.rmtree(checkpoint)
            continue
        problem = flaw(checkpoint)
        if problem is None:
            return str(checkpoint)
        logger.warning("checkpoint %s is not sound (%s): falling back to the one before", checkpoint, problem)
        shutil.rmtree(checkpoint)
    return None
