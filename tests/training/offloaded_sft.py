"""A rank of a warm start with activations offloaded: `python -m tests.training.offloaded_sft FOLDER STRATEGY`.

TRL moves activations off the accelerator that torch names. Here that is the CPU: they are copied within its memory, by
the hooks of a GPU, without its streams and pinned memory.
"""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trl.models.activation_offloading import get_act_offloading_ctx_manager
from trl.trainer import sft_trainer

from rlassay.layout import Layout
from rlassay.training.sft import run_sft
from tests.evaluation.tiny import only
from tests.training.short_run import load_short
from tests.training.test_shared_jobs import HALF


def main(folder: Path, strategy: str) -> None:
    """Train the warm start of the study in `folder`; AssertionError if no activation was offloaded."""
    offloaded: list[int] = []

    def by_cpu(model: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.accelerator, "current_accelerator", lambda: SimpleNamespace(type="cpu"))
            hooks: Any = get_act_offloading_ctx_manager(model=model, use_pin_memory=False, use_streams=False)
        pack = hooks.pack_hook

        def counted(activation: torch.Tensor) -> int:
            number = pack(activation)
            if hooks.tracker[number][1]:  # it was copied
                offloaded.append(number)
            return number

        hooks.pack_hook = counted
        return hooks

    trainer: Any = sft_trainer
    trainer.get_act_offloading_ctx_manager = by_cpu
    study = load_short(folder, **HALF, strategy=strategy)
    policy = only(study, "sft")
    assert policy.recipe.sft is not None
    sft = policy.recipe.sft.model_copy(update={"activation_offloading": True})
    offloading = replace(policy, recipe=policy.recipe.model_copy(update={"sft": sft}))
    run_sft(study, Layout(root=folder / "results/digits"), offloading)
    assert offloaded


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
