"""Micro-batches by token budget train on what TRL's padded ones do, with fewer tokens of padding."""

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rlassay.credit import CREDITS
from rlassay.divergence import AdaptiveBeta
from rlassay.training import CreditGRPOTrainer
from rlassay.training.algorithms.kl_control import KLControl
from rlassay.training.scale.micro_batches import Pool, divided, packed, padded_tokens
from rlassay.training.seq2seq import Seq2SeqGRPOTrainer
from tests.training import tiny_seq2seq
from tests.training.tiny_lm import make_trainer, weights

BUDGET = 15
"""Tokens: two completions of the longest length, or three short ones, with their prompts of two tokens."""
LOSSES = ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]
SGD: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant", "max_grad_norm": 1e9}


def trained(folder: Path, budget: int | None, **settings: Any) -> Any:
    """A trainer after two optimiser steps on each of its generation batches; `widths` are its forward passes."""
    folder.mkdir()
    settings = SGD | {"max_steps": 2, "num_iterations": 2} | deepcopy(settings)  # a KL control has a state
    trainer = make_trainer(CreditGRPOTrainer, folder, **settings, max_tokens_per_micro_batch=budget)
    trainer.shapes = []
    score = trainer._get_per_token_logps_and_entropies

    def watched(model: Any, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            trainer.shapes.append(tuple(input_ids.shape))
        return score(model, input_ids, *args, **kwargs)

    trainer._get_per_token_logps_and_entropies = watched
    trainer.train()
    return trainer


def expect_same(first: Any, second: Any, keys: tuple[str, ...] = ()) -> None:
    """Assert that two trainers have the same weights, and logged the same."""
    for name, value in weights(first).items():
        torch.testing.assert_close(weights(second)[name], value, rtol=1e-4, atol=2e-6, msg=name)
    logs = [[line for line in each.state.log_history if "loss" in line] for each in (first, second)]
    for one, other in zip(*logs, strict=True):
        assert one.keys() == other.keys()
        for name in set(one) - {"step_time", "grad_norm", *keys}:
            if not name.startswith("time/"):
                assert other[name] == pytest.approx(one[name], rel=1e-3, abs=2e-6, nan_ok=True), name
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_loss_of_every_type_is_that_of_padded_micro_batches(loss_type: str, tmp_path: Path):
    settings: dict[str, Any] = {"loss_type": loss_type}
    padded, budgeted = (trained(tmp_path / str(each), each, **settings) for each in (None, BUDGET))
    assert max(rows * width for rows, width in budgeted.shapes) <= BUDGET
    assert sum(rows * width for rows, width in budgeted.shapes) < sum(rows * width for rows, width in padded.shapes)
    expect_same(padded, budgeted)


CASES: dict[str, dict[str, Any]] = {
    "sequence ratios": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "truncated completions left out": {"mask_truncated_completions": True, "loss_type": "grpo"},
    "TRL's KL term": {"beta": 0.3},
    "entropy bonus": {"entropy_coef": 0.5, "loss_type": "grpo"},
    "KL control": {"kl": KLControl(AdaptiveBeta(0.3, 0.01, 100.0), "low_var_kl", "loss")},
    "token credit": {"credit": [partial(CREDITS["entropy_filter"], fraction=0.4), CREDITS["shuffled_weights"]]},
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_so_with_each_option_that_adds_to_the_loss(case: str, tmp_path: Path):
    padded, budgeted = (trained(tmp_path / str(each), each, **CASES[case]) for each in (None, BUDGET))
    expect_same(padded, budgeted)


def test_an_encoder_decoder_trains_alike(tmp_path: Path):
    trained_weights: list[dict[str, torch.Tensor]] = []
    for budget in (None, 14):
        torch.manual_seed(0)
        settings = SGD | {"max_steps": 2, "num_iterations": 2, "max_tokens_per_micro_batch": budget}
        trainer = tiny_seq2seq.make_trainer(Seq2SeqGRPOTrainer, tmp_path / str(budget), "bart", **settings)
        trainer.train()
        trained_weights.append(weights(trainer))
    for name, value in trained_weights[0].items():
        torch.testing.assert_close(trained_weights[1][name], value, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo"])
def test_micro_batches_of_an_optimiser_step_are_pooled_where_the_loss_allows(loss_type: str, tmp_path: Path):
    settings: dict[str, Any] = {
        **{"loss_type": loss_type, "per_device_train_batch_size": 4, "num_iterations": 1, "max_steps": 2},
        **{"steps_per_generation": 4, "gradient_accumulation_steps": 2},
    }
    padded, budgeted = (trained(tmp_path / str(each), each, **settings) for each in (None, BUDGET))
    # TRL takes the mean over two micro-batches where here all tokens count alike.
    expect_same(padded, budgeted, keys=("entropy", *(name for name in budgeted.state.log_history[0] if "clip" in name)))
    per_slice = trained(tmp_path / "large", 4 * 9, **settings)
    assert len(per_slice.shapes) <= len(padded.shapes)


def test_images_go_with_their_completions():
    """Two slices; the second row has two images, the third none, each image 4 rows of pixels or 8."""
    grids = torch.tensor([[1, 2, 2], [1, 2, 4], [1, 2, 2], [1, 2, 2]])
    pixels = torch.arange(20.0)[:, None].expand(20, 3)
    mask = torch.tensor([[0, 1], [1, 1], [1, 1], [0, 1]])
    slices = [
        {
            **{"prompt_ids": mask[:2], "prompt_mask": mask[:2], "num_images": [1, 2]},
            **{"completion_ids": torch.tensor([[1, 0, 0], [1, 1, 1]]), "advantages": torch.tensor([1.0, 2.0])},
            **{"completion_mask": torch.tensor([[1, 0, 0], [1, 1, 1]]), "image_grid_thw": grids[:3]},
            **{"pixel_values": pixels[:16], "num_items_in_batch": torch.tensor(7)},
            "mm_token_type_ids": torch.tensor([[9, 1, 5, 9, 9], [1, 2, 3, 4, 5]]),
        },
        {
            **{"prompt_ids": mask[2:], "prompt_mask": mask[2:], "num_images": [0, 1]},
            **{"completion_ids": torch.tensor([[1, 1, 0], [1, 0, 0]]), "advantages": torch.tensor([3.0, 4.0])},
            **{"completion_mask": torch.tensor([[1, 1, 0], [1, 0, 0]]), "image_grid_thw": grids[3:]},
            **{"pixel_values": pixels[16:], "num_items_in_batch": torch.tensor(7)},
            "mm_token_type_ids": torch.tensor([[1, 2, 3, 4, 9], [9, 6, 7, 9, 9]]),
        },
    ]
    pool = Pool(slices)
    assert pool.lengths == [(1, 2), (2, 3), (2, 2), (1, 2)]
    short = pool.take([3, 0])
    assert short["mm_token_type_ids"].tolist() == [[6, 7, 9], [1, 5, 9]]
    assert short["pixel_values"][:, 0].tolist() == [16, 17, 18, 19, 0, 1, 2, 3]
    assert short["num_images"] == [1, 1]
    assert short["advantages"].tolist() == [4.0, 1.0]
    assert short["num_items_in_batch"] == 7
    long = pool.take([2, 1])
    assert long["image_grid_thw"].tolist() == grids[1:3].tolist()
    assert long["pixel_values"][:, 0].tolist() == list(range(4, 16))
    assert long["completion_ids"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_packing_by_hand():
    lengths = [(2, 8), (2, 1), (3, 2), (2, 2)]
    assert packed(lengths, 12) == [[1, 3], [2], [0]]  # 2 x (2 + 2) = 8; with (3, 2): 3 x (3 + 2) = 15
    assert packed(lengths, 15) == [[1, 3, 2], [0]]
    assert packed(lengths, 5) == [[1], [3], [2], [0]]  # the last alone exceeds the budget
    assert padded_tokens([(3, 2), (2, 8)]) == 22
    assert divided([[1, 3], [2], [0]], 4, lengths) == [[1], [3], [2], [0]]
    assert divided([[1, 3, 2], [0]], 2, lengths) == [[1, 3, 2], [0]]
    with pytest.raises(ValueError, match="4 completions"):
        divided([[1, 3], [2], [0]], 5, lengths)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_entropy_quantile": 0.5}, "top_entropy_quantile"),
        ({"use_adaptive_entropy": True, "entropy_coef": 0.1}, "use_adaptive_entropy"),
    ],
)
def test_losses_over_all_completions_at_once_are_refused(settings: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        make_trainer(CreditGRPOTrainer, tmp_path, **settings, max_tokens_per_micro_batch=BUDGET)


def test_a_budget_below_one_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="got 0"):
        make_trainer(CreditGRPOTrainer, tmp_path, max_tokens_per_micro_batch=0)
