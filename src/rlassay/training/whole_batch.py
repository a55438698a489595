"""From what each process knows of its own completions to the whole generation batch, and back."""

import hashlib
import json
import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Float, Int
from torch import Tensor

from rlassay.credit import TokenSignals
from rlassay.signals.measuring import SignalBatch, completion_signals

# MERGED FROM training.whole_batch: From what each process knows of its own completions to the whole generation
# batch, and back.


def whole_signals(
    accelerator: Accelerator,
    measured: SignalBatch,
    completion_mask: Int[Tensor, "batch time"],
    advantages_B: Float[Tensor, "batch"],
) -> TokenSignals:
    """The signals of all processes' completions; those of the image are NaN where none could be measured.

    Args:
        accelerator: joins the processes.
        measured: on this process.
        completion_mask: (B, T), 1 on the tokens of this process that the loss counts.
        advantages_B: (B,), this process's.
    """
    length = completion_mask.shape[1]

    def whole(values_BT: Tensor | None) -> Tensor | None:
        return None if values_BT is None else _joined(accelerator, _fitted(values_BT, length), math.nan)

    dominance_BT = None if measured.attention is None else measured.attention.dominance_BT
    missing_BT = torch.full_like(completion_mask, math.nan, dtype=torch.float32)
    return TokenSignals(
        completion_mask=_joined(accelerator, completion_mask, 0),
        advantages_B=accelerator.gather(advantages_B),  # pyright: ignore[reportArgumentType]
        has_image_B=accelerator.gather(measured.has_image_B),  # pyright: ignore[reportArgumentType]
        entropy_BT=whole(measured.entropy_BT),
        perception_BT=whole(missing_BT if measured.perception_BT is None else measured.perception_BT),
        dominance_BT=whole(missing_BT if dominance_BT is None else dominance_BT),
        draws_BT=whole(measured.draws_BT),
    )


def whole_readings(accelerator: Accelerator, measured: SignalBatch) -> list[dict[str, float]]:
    """The readings of each completion of all processes; empty for one whose process has measured none."""
    readings: list[dict[str, float]] = [{} for _ in measured.has_image_B]
    if measured.attention is not None:
        readings = completion_signals(measured.attention.per_completion)
    return gather_object(readings)  # as objects, since processes without an image have nothing to join


def own_rows(
    accelerator: Accelerator, whole_BT: Float[Tensor, "batches times"], completion_mask: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """This process's part of what was made of the whole batch."""
    size, length = completion_mask.shape
    first = accelerator.process_index * size
    return whole_BT[first : first + size, :length]


def _joined(accelerator: Accelerator, values_BT: Tensor, fill: int | float) -> Tensor:
    padded: Any = accelerator.pad_across_processes(values_BT, dim=1, pad_index=fill)  # pyright: ignore
    return accelerator.gather(padded)  # pyright: ignore[reportReturnType]


def _fitted(values_BT: Float[Tensor, "batch some"], length: int) -> Float[Tensor, "batch time"]:
    return torch.nn.functional.pad(values_BT, (0, length - values_BT.shape[1]), value=math.nan)


# MERGED FROM training.batch_rows: What a row of a TRL batch says, in either of TRL's two formats.


def prompt_key(row: dict[str, Any]) -> str:
    """`prompt_id` of a dataset row; rows of other people's datasets get the hex digest of the prompt's text."""
    if "prompt_id" in row:
        return row["prompt_id"]
    return hashlib.sha256(json.dumps(row["prompt"], default=lambda _: "image").encode()).hexdigest()[:16]


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """The sampled text of a plain or a conversational completion."""
    return completion if isinstance(completion, str) else "".join(message["content"] for message in completion)


def images_of(prompt: str | list[dict[str, Any]]) -> list[Any]:
    """The images in the parts of a conversation, in their order; a plain prompt has none."""
    if isinstance(prompt, str):
        return []
    parts = [part for turn in prompt if not isinstance(turn["content"], str) for part in turn["content"]]
    return [part["image"] for part in parts if part["type"] == "image"]
