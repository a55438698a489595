"""Two processes whose warm start offloads activations end with the weights of two that keep them."""

from pathlib import Path

import pytest
import torch

from rlassay import ranks
from tests.launcher import Launcher
from tests.training.short_run import fresh_layout, load_short
from tests.training.test_shared_jobs import HALF, fork_ranks, layout_of, warm_start, weights_of


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_offloaded_activations_change_no_weight(strategy: str, launcher: Launcher, tmp_path: Path):
    weights: list[dict[str, torch.Tensor]] = []
    for offloaded in (False, True):
        folder = tmp_path / str(offloaded)
        (folder / "signs").mkdir(parents=True)
        study = load_short(folder, **HALF, strategy=strategy)
        fresh_layout(folder / "results")
        if offloaded:
            environment = {ranks.FOLDER: str(folder / "signs"), "DS_ACCELERATOR": "cpu"}
            arguments = [str(folder), strategy]
            launcher.run_ranks("tests.training.offloaded_sft", arguments, 2, folder / "log", **environment)
        else:
            fork_ranks(launcher, folder, "sft_train", warm_start(study))
        weights.append(weights_of(layout_of(folder), warm_start(study), "sft"))
    kept, offloaded = weights
    assert kept.keys() == offloaded.keys()
    for name, values in kept.items():
        torch.testing.assert_close(offloaded[name], values, rtol=0, atol=0, msg=name)
