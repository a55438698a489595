"""Qwen2.5-VL with its real processor goes through every stage, and its attention is measured."""

from pathlib import Path

import pytest

pytest.importorskip("torchvision", reason="Qwen-VL's processor needs torchvision: make .venv-vllm, then make test")

from tests.contract.hub_stages import take_through_every_stage
from tests.engines.qwen import save_qwen


def test_warm_start_rl_and_evaluation_of_qwen_vl_with_adapters(tmp_path: Path):
    take_through_every_stage(save_qwen(tmp_path / "hub"), tmp_path, with_images=True)
