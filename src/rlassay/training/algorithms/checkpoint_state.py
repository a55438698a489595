"""State of the trainer's parts in a checkpoint, beside what transformers saves there.

A part is anything with `state_dict` and `load_state_dict`: a controller, a model, a guard.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FILE = "rlassay_state.pt"
"""File in a checkpoint's folder with the states of all parts."""


def save_parts(checkpoint: Path, parts: Mapping[str, Any]) -> None:
    """Write the state of every part into a checkpoint; without parts, no file."""
    if parts:
        torch.save({name: part.state_dict() for name, part in parts.items()}, checkpoint / FILE)


def load_parts(checkpoint: Path, parts: Mapping[str, Any]) -> None:
    """Give every part its state in a checkpoint.

    Errors: ValueError if the checkpoint lacks the state of a part: it is that of a run without it.
    """
    if not parts:
        return
    file = checkpoint / FILE
    saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True) if file.exists() else {}
    if absent := ", ".join(sorted(set(parts) - set(saved))):
        raise ValueError(f"{checkpoint}: no state of {absent}, so that training cannot continue exactly from it")
    for name, part in parts.items():
        part.load_state_dict(saved[name])
