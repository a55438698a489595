"""Every field of TRL's config has a place, and the page that says so is current."""

import ast
import inspect
import textwrap
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from trl import GRPOTrainer

from rlassay.config.engine import Strategy, VLLMSampler
from rlassay.credit import uniform
from rlassay.training import CreditGRPOTrainer
from rlassay.training.grpo_options import OWNED, PAGE, destinations, page
from rlassay.training.rl import grpo_arguments, vllm_arguments
from rlassay.training.scale.strategy import strategy_arguments
from rlassay.training.vllm.sampler import VLLMPlan
from tests.training.tiny_lm import make_trainer, model, weights

PASSED_THROUGH: dict[str, dict[str, Any]] = {
    "top_entropy_quantile": {"top_entropy_quantile": 0.4},
    "entropy_coef": {"entropy_coef": 0.1},
    "adaptive entropy": {"use_adaptive_entropy": True, "entropy_coef": 0.05, "entropy_target": 2.0},
    "beta": {"beta": 0.1, "num_iterations": 2, "max_steps": 4, "use_bias_correction_kl": False},
    "off_policy_mask_threshold": {"off_policy_mask_threshold": 0.01, "num_iterations": 2, "max_steps": 4},
    "sampling": {"top_k": 5, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1, "temperature": 0.8},
    "batches": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 4},
    "rewards": {"reward_weights": [0.5, 2.0], "scale_rewards": "batch"},
    "aggregation": {"multi_objective_aggregation": "normalize_then_sum"},
    "padding": {"pad_to_multiple_of": 8, "mask_truncated_completions": True},
    "optimiser": {"optim": "sgd", "max_grad_norm": 0.1, "weight_decay": 0.1, "adam_beta1": 0.5},
    "checkpointing": {"gradient_checkpointing": True},
}


def test_every_field_has_one_place():
    assert len(destinations()) > 150


def test_the_page_is_current():
    root = Path(__file__).parents[2]
    assert (root / PAGE).read_text(encoding="utf-8") == page(), "run python -m rlassay.training.grpo_options"


def test_the_stage_sets_the_fields_that_it_owns():
    tree = ast.parse(textwrap.dedent(inspect.getsource(grpo_arguments)))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "GRPOConfig"]
    named = {keyword.arg for keyword in call.keywords if keyword.arg}
    passed_on = {f"vllm_{name}" for name in VLLMSampler.model_fields.keys() - VLLMPlan.__dataclass_fields__.keys()}
    of_strategies = {name for each in get_args(Strategy) for name in strategy_arguments(each, model(), bf16=True)}
    assert named | of_strategies | vllm_arguments(VLLMSampler(kind="vllm")).keys() - passed_on == set(OWNED)


@pytest.mark.parametrize("case", PASSED_THROUGH)
def test_a_field_that_changes_training_reaches_trl(case: str, tmp_path: Path):
    def trained(trainer_class: Any, **changes: Any) -> dict[str, torch.Tensor]:
        trainer = make_trainer(trainer_class, tmp_path, **changes)
        trainer.train()
        return weights(trainer)

    expected = trained(GRPOTrainer, **PASSED_THROUGH[case])
    ours = trained(CreditGRPOTrainer, credit=uniform, **PASSED_THROUGH[case])
    assert all(torch.equal(ours[name], value) for name, value in expected.items())
