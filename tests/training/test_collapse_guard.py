"""Runs that end early because their policy has collapsed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rlassay.layout import Layout
from rlassay.progress import read_progress
from rlassay.training import CreditGRPOTrainer
from rlassay.training.algorithms.collapse_guard import Collapse, CollapseGuard
from rlassay.training.rl import run_rl
from tests.training.conftest import copied
from tests.training.short_run import RUN, load_short, policy_of, proof, timeless_metrics
from tests.training.tiny_lm import make_trainer, weights


def judged(guard: CollapseGuard, *values: dict[str, float]) -> Collapse | None:
    for step, logs in enumerate(values, 1):
        if found := guard._judge(logs, step):
            return found
    return None


def test_a_rule_has_to_be_broken_for_some_steps_in_a_row():
    guard = CollapseGuard({"min_entropy": 0.5, "max_kl": 2.0}, patience=2)
    low, high = {"entropy": 0.4, "kl": 0.0}, {"entropy": 0.6, "kl": 0.0}
    assert judged(guard, low, high, low, {"entropy": 0.5}, {"entropy": 0.4}) is None
    expected = Collapse(step=1, reason="entropy was 0.4, below min_entropy 0.5 for 2 steps in a row")
    assert judged(guard, low) == expected
    other = CollapseGuard({"min_entropy": 0.5, "max_kl": 2.0}, patience=1)
    assert judged(other, high, {"kl": 2.0}, {"kl": 2.5}) == Collapse(step=3, reason="kl was 2.5, above max_kl 2 once")


def test_each_rule_limits_its_metric():
    logs = {"entropy": 1.0, "reward_std": 1.0, "completions/clipped_ratio": 0.5, "kl": 1.0}
    rules = {"min_entropy": 1.1, "min_reward_std": 1.1, "max_clipped_ratio": 0.4, "max_kl": 0.9}
    for rule, limit in rules.items():
        assert judged(CollapseGuard({rule: limit}, patience=1), logs) is not None, rule
        assert judged(CollapseGuard({rule: 2 - limit if "ratio" not in rule else 0.6}, patience=1), logs) is None, rule


@pytest.mark.parametrize(("rule", "metric"), [("min_entropy", "entropy"), ("max_kl", "kl")])
def test_a_metric_that_is_not_a_number_breaks_its_rule(rule: str, metric: str):
    guard = CollapseGuard({rule: 0.5}, patience=2)
    assert judged(guard, {metric: float("nan")}, {"loss": 0.0}) is None
    collapse = judged(guard, {metric: float("nan")})
    assert collapse is not None
    assert collapse.reason.startswith(f"{metric} was nan, ")


def test_counting_goes_on_after_a_resume():
    guard, resumed = (CollapseGuard({"min_entropy": 0.5}, patience=2) for _ in range(2))
    assert judged(guard, {"entropy": 0.4}) is None
    resumed.load_state_dict(guard.state_dict())
    assert judged(resumed, {"entropy": 0.4}) is not None


def test_settings_that_mean_nothing_are_errors():
    with pytest.raises(ValueError, match="unknown rule max_entropy, expected some of min_entropy, "):
        CollapseGuard({"max_entropy": 1.0})
    with pytest.raises(ValueError, match="patience: got 0"):
        CollapseGuard({}, patience=0)


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path: Path):
    def trained(steps: int, guard: CollapseGuard | None) -> Any:
        trainer = make_trainer(CreditGRPOTrainer, tmp_path, max_steps=steps, lr_scheduler_type="constant")
        if guard is not None:
            trainer.add_callback(guard)
            loss = trainer._compute_loss
            trainer._compute_loss = lambda model, inputs: (
                loss(model, inputs) * (float("nan") if trainer.state.global_step == 1 else 1.0)
            )
        trainer.train()
        return trainer

    guard = CollapseGuard({})
    broken, before = trained(3, guard), trained(1, None)
    assert guard.collapse == Collapse(step=2, reason="the gradient is not finite")
    assert broken.state.global_step == 2
    assert all(torch.equal(weights(broken)[name], value) for name, value in weights(before).items())


def test_a_collapsed_run_has_a_result_that_says_so(warm_started: Path, tmp_path: Path):
    guard = {"min_entropy": 100.0, "patience": 3}
    study, layout = load_short(tmp_path, rl__guard=guard), copied(warm_started, tmp_path)
    run_rl(study, layout, policy_of(study))
    reason = proof(layout)["collapsed"]["reason"]
    assert proof(layout)["collapsed"]["step"] == proof(layout)["steps"] == 3
    assert reason.startswith("entropy was ")
    assert reason.endswith("below min_entropy 100 for 3 steps in a row")
    assert [line["step"] for line in timeless_metrics(layout)] == [1, 2, 3]
    assert (layout.root / RUN / proof(layout)["weights"]).exists()
    assert shown(layout) == ("collapsed", f"collapsed at step 3: {reason}")
    (layout.state(RUN) / "run.json").write_text(
        json.dumps(json.loads((layout.state(RUN) / "run.json").read_text()) | {"status": "running"})
    )
    run_rl(study, layout, policy_of(study))  # there is nothing to do, and it is still no success
    assert shown(layout) == ("collapsed", f"collapsed at step 3: {reason}")


def shown(layout: Layout) -> tuple[str, str | None]:
    progress = read_progress(layout, RUN)
    assert progress is not None
    return progress.condition, progress.error
