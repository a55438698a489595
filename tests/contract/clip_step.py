"""A program that takes one training step on clips, on one process or several.

`torchrun --nproc_per_node 2 -m tests.contract.clip_step <maker of a trainer> <folder> <completions per process>` writes
`<rank>.pt`: the gradients of the step.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback

from rlassay.signals import Masking
from rlassay.signals.measuring import SignalPlan

COMPLETIONS = 8
"""Completions of the step."""


class _Gradients(TrainerCallback):
    def __init__(self) -> None:
        self.found: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        named = kwargs["model"].named_parameters()
        found = {name.removeprefix("module."): each.grad for name, each in named}
        self.found = {name: grad.clone() for name, grad in found.items() if grad is not None}


def wait_for_all() -> None:
    """Wait for the other processes, if there are any: the first one alone writes the model."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def gradients(maker: str, folder: Path, per_process: int) -> dict[str, torch.Tensor]:
    """The gradients of one greedy step of the trainer that the function `maker` (`module:name`) makes in a folder."""
    module, _, name = maker.partition(":")
    trainer: Any = getattr(import_module(module), name)(
        folder,
        per_device_train_batch_size=per_process,
        **{"gradient_accumulation_steps": 1, "steps_per_generation": 1, "num_iterations": 1, "max_steps": 1},
        **{"top_k": 1, "max_grad_norm": 0.0},  # greedy: completions depend on no process's own random numbers
        credit=["entropy_filter", "perception_filter", "attention_weights", "trajectory_scaling"],
        signals=SignalPlan(masking=Masking(block=4)),
    )
    kept = _Gradients()
    trainer.add_callback(kept)
    trainer.train()
    return kept.found


if __name__ == "__main__":
    rank = PartialState(cpu=True).process_index
    made = gradients(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    torch.save(made, Path(sys.argv[2]) / f"{rank}.pt")
