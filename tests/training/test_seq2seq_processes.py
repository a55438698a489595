"""Two processes train an encoder-decoder as one does."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.launcher import Launcher
from tests.training.seq2seq_steps import LOSSES, SIZE, fine_tuned, main
from tests.training.tiny_seq2seq import model


def test_two_processes_give_the_weights_and_metrics_of_one(launcher: Launcher, tmp_path: Path):
    launcher.run_ranks("tests.training.seq2seq_steps", [str(tmp_path), str(SIZE // 2)], 2, tmp_path / "log")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = main(tmp_path / "alone", SIZE)
    assert set(alone) == {"sft", *LOSSES}
    for training, expected in alone.items():
        start = model("t5" if training == "sft" else "bart_forced").state_dict()
        assert any((value - start[name]).abs().max() > 1e-2 for name, value in expected["weights"].items())
        for name in expected["weights"]:
            assert torch.equal(first[training]["weights"][name], second[training]["weights"][name])
        assert len(expected["logged"]) == (3 if training == "sft" else 1)
        _expect(first[training], expected, training)


def test_micro_batches_of_a_warm_start_count_every_token_once(tmp_path: Path):
    """The micro-batches have different numbers of label tokens, so that a mean of their means would differ."""
    whole, parts = (fine_tuned(tmp_path / str(count), SIZE // count, count) for count in (1, 3))
    _expect(parts, whole, "micro-batches")


def _expect(found: dict[str, Any], expected: dict[str, Any], training: str) -> None:
    for name, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-3, atol=1e-4, msg=f"{training} {name}")
    for ours, its in zip(found["logged"], expected["logged"], strict=True):
        assert ours == pytest.approx(its, rel=1e-3, abs=1e-5), training
