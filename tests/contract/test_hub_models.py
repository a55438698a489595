"""A hub model with adapters goes through every stage, whether it sees images or only reads text."""

from pathlib import Path

from tests.contract.hub_stages import take_through_every_stage
from tests.models.hubs import text_model, vision_model


def test_warm_start_rl_and_evaluation_of_a_text_model_with_adapters(tmp_path: Path):
    take_through_every_stage(text_model(tmp_path / "hub"), tmp_path, with_images=False)


def test_warm_start_rl_and_evaluation_of_a_vision_model_with_adapters(tmp_path: Path):
    take_through_every_stage(vision_model(tmp_path / "hub"), tmp_path, with_images=True)
