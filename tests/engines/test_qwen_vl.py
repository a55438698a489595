"""Qwen2.5-VL with its real processor goes through every stage."""

from pathlib import Path

import pytest

from tests.contract.hub_stages import take_through_every_stage
from tests.engines.qwen import save_qwen
from tests.engines.vllm_process import needs_torchvision

pytestmark = needs_torchvision


@pytest.mark.parametrize("adapters", [True, False])
def test_warm_start_rl_and_evaluation_of_qwen_vl(adapters: bool, tmp_path: Path):
    take_through_every_stage(save_qwen(tmp_path / "hub"), tmp_path, with_images=True, adapters=adapters)
