"""Completions that move between batches keep their own images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from trl import GRPOConfig

from rlassay.records import Media, PromptRow
from rlassay.signals import ScoringConfig, model_inputs
from rlassay.signals.scoring import teacher_forced
from rlassay.training import CreditGRPOTrainer
from rlassay.training.algorithms.choice import GroupPlan
from rlassay.training.algorithms.dynamic_sampling import DynamicSampling
from rlassay.training.algorithms.replay import Replay
from tests.training.tiny_vlm import dataset_of, varied_vlm

SIZE = 3
DEAD = {"p0", "p1"}


def rising(completions: list[Any], prompt_id: list[str], **columns: Any) -> list[float]:
    """0, 1 and 2 within a group; 0 for the dead prompts."""
    return [0.0 if prompt_id[index] in DEAD else float(index % SIZE) for index in range(len(completions))]


def vlm_trainer(folder: Path, groups: GroupPlan) -> Any:
    """A trainer on five prompts with an image each, of two sizes."""
    model, processor = varied_vlm()
    rows = [_row(folder, index) for index in range(5)]
    return CreditGRPOTrainer(
        model=model,
        reward_funcs=rising,
        args=GRPOConfig(
            output_dir=str(folder / "checkpoints"),
            per_device_train_batch_size=SIZE,
            steps_per_generation=2,  # so that old log-probabilities are computed
            num_generations=SIZE,
            max_completion_length=6,
            use_cpu=True,
            bf16=False,
            report_to=[],
            seed=2,
        ),
        train_dataset=dataset_of(rows, processor, folder),
        processing_class=processor,
        groups=groups,
    )


def _row(folder: Path, index: int) -> PromptRow:
    image = Image.linear_gradient("L").rotate(70 * index).resize((16, 16) if index % 2 else (24, 16))
    image.save(folder / f"{index}.png")
    media = (Media(path=f"{index}.png"),)
    question = "Which? " * (1 + index)
    return PromptRow(prompt_id=f"p{index}", question=question, answer="A", choices=("3", "7"), media=media)


def fresh_logps(trainer: Any, images: list[list[Any]]) -> list[torch.Tensor]:
    """Log-probabilities of the batch's completions given these images, one at a time and without padding."""
    batch = trainer.xp_batch
    found: list[torch.Tensor] = []
    for index, ids in enumerate(batch.completion_ids):
        tokens = torch.tensor([ids])
        inputs = model_inputs(
            trainer.processing_class, [batch.prompts[index]], [images[index]], tokens, torch.ones_like(tokens)
        )
        scoring = ScoringConfig(temperature=1.0, batch_size=1)
        found.append(teacher_forced(trainer.model, inputs, scoring).per_token_logps[0])
    return found


@pytest.mark.parametrize("kind", ["replay", "dynamic"])
def test_each_completion_is_scored_against_its_own_image(tmp_path: Path, kind: str):
    dynamic = DynamicSampling(max_resample=5)
    trainer = vlm_trainer(
        tmp_path, GroupPlan(replay=Replay()) if kind == "replay" else GroupPlan(dynamic_sampling=dynamic)
    )
    trainer.model.train()

    def batch(*prompts: int) -> dict[str, Any]:
        rows = [trainer.train_dataset[index] for index in prompts for _ in range(SIZE)]
        return trainer._generate_and_score_completions(rows)

    batch(2, 3)
    with torch.no_grad():  # the policy moves on: old log-probabilities have to be computed again
        trainer.model.lm_head.weight.add_(torch.randn(trainer.model.lm_head.weight.shape) / 4)
    output = batch(0, 4)
    own = trainer.xp_batch
    assert DEAD.isdisjoint(own.prompt_ids)
    assert output["num_images"] == [1] * 2 * SIZE
    lengths = [len(ids) for ids in own.completion_ids]
    for row, fresh in enumerate(fresh_logps(trainer, own.images)):
        torch.testing.assert_close(
            output["old_per_token_logps"][row, : lengths[row]], fresh.detach(), atol=1e-4, rtol=1e-4
        )
    # Rewards and advantages are the group's own: 0, 1, 2 with deviation 1.
    expected = [-1 / 1.0001, 0.0, 1 / 1.0001] * 2
    assert output["advantages"].tolist() == pytest.approx(expected, abs=1e-6)
    # The test sees images that are swapped between the two prompts.
    others = own.images[SIZE:] + own.images[:SIZE]
    swapped = torch.cat(fresh_logps(trainer, others)) - torch.cat(fresh_logps(trainer, own.images))
    assert swapped.abs().max() > 1e-2
