"""Arguments of the wrong kind are refused when the trainer is built, and convenient ones are accepted."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from datasets import Dataset

from rlassay.credit import CREDITS, TokenSignals, compose, credit_part, needs
from rlassay.rewards import REWARDS
from rlassay.signals import Masking
from rlassay.training import CreditGRPOTrainer, SignalPlan, trl_reward
from rlassay.training.batch import completion_text, images_of, prompt_key
from tests.credit.make import signals
from tests.training.tiny_lm import brevity, dataset, even_digits, make_trainer

ENTROPY = CREDITS["entropy_filter"]
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "unknown part": ({"credit": "entropi_filter"}, {}, "'entropi_filter'.*did you mean 'entropy_filter'"),
    "fraction": ({"credit": partial(ENTROPY, fraction=20)}, {}, "entropy_filter: fraction: got 20"),
    "scope": ({"credit": [partial(ENTROPY, scope="group")]}, {}, "entropy_filter: scope: got 'group'"),
    "option": ({"credit": partial(ENTROPY, share=0.2)}, {}, "entropy_filter: .*'share'"),
    "own option": ({"credit": partial(lambda given: given, share=0.2)}, {}, "share"),
    "denominator": ({"credit_denominator": "selectd"}, {}, "credit_denominator: got 'selectd'"),
    "denominator of the loss": ({"credit_denominator": "selected"}, {"loss_type": "dr_grpo"}, "'dr_grpo'"),
    "penalty": ({"entropy_penalty": -0.1}, {}, "entropy_penalty: got -0.1"),
    "image credit": ({"credit": "perception_filter"}, {}, "perception_filter needs perception, .*LlamaForCausalLM"),
    "own image credit": (
        {"credit": credit_part(lambda given: given.dominance_BT, needs="dominance")},
        {},
        "needs dominance",
    ),
    "two filters": ({"credit": ENTROPY}, {"top_entropy_quantile": 0.2}, "top_entropy_quantile: got 0.2"),
    "phases": ({"weight_phases": [((0.0, 1.0),)]}, {}, "weight_phases: got 1, .*even_digits, brevity"),
}


@pytest.fixture(autouse=True)
def _as_users_run_it() -> Iterator[None]:
    """Without the type checks of the tests, which users do not have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_refused_when_the_trainer_is_built(case: str, tmp_path: Path):
    ours, arguments, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        make_trainer(partial(CreditGRPOTrainer, **ours), tmp_path, **arguments)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"also": {"entropi"}}, "SignalPlan.also: got 'entropi'.*did you mean 'entropy'"),
        ({"layers": "third"}, "SignalPlan.layers: got 'third'"),
        ({"dominance": "last"}, "SignalPlan.dominance: got 'last'"),
        ({"dominance": 0}, "SignalPlan.dominance: got 0"),
        ({"mask_per": "group"}, "SignalPlan.mask_per: got 'group'"),
        ({"estimator": "k2"}, "SignalPlan.estimator: got 'k2'"),
        ({"balance_ratio": 1.0}, "SignalPlan.balance_ratio: got 1.0"),
    ],
)
def test_a_wrong_plan_is_refused(wrong: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        SignalPlan(**wrong)


def test_a_wrong_masking_is_refused():
    with pytest.raises(ValueError, match=r"masking: got .*mode='grau'"):
        Masking(mode="grau")  # pyright: ignore[reportArgumentType]


def test_a_mask_of_integers_is_no_order():
    given = signals(entropy_BT=torch.rand(3, 6))
    with pytest.raises(ValueError, match=r"as_mask: got int64 that is no order .* return bool"):
        compose([as_mask], given)


def as_mask(given: TokenSignals) -> torch.Tensor:
    return (given.named("entropy") > 0.5).long()


def test_a_function_of_ones_own_gets_what_it_declares(tmp_path: Path):
    @credit_part(needs={"entropy"})
    def uncertain(given: TokenSignals) -> torch.Tensor:
        assert given.entropy_BT is not None
        return given.entropy_BT > given.entropy_BT.median()

    assert needs([uncertain]) == needs([partial(uncertain)]) == {"entropy"}
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, credit=uncertain)
    output = trainer._generate_and_score_completions([trainer.train_dataset[index // 4] for index in range(8)])
    assert 0 < trainer.xp_batch.credit.selected_BT.sum() < output["completion_mask"].sum()
    with pytest.raises(ValueError, match=r"needs: got 'entropi'.*did you mean 'entropy'"):
        credit_part(uncertain, needs={"entropi"})


def test_an_undeclared_signal_comes_with_its_remedy(tmp_path: Path):
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, credit=lambda given: given.entropy_BT > 1)
    with pytest.raises(ValueError, match=r"not measured are None, .*credit_part\(your_function, needs=.*SignalPlan"):
        trainer.train()
    measured = partial(CreditGRPOTrainer, signals=SignalPlan(also=frozenset({"entropy"})))
    make_trainer(measured, tmp_path, credit=lambda given: given.entropy_BT > 1, max_steps=1).train()


def test_a_part_is_found_by_its_name(tmp_path: Path):
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, credit=["entropy_filter", "uniform"])
    assert trainer.xp_credit_parts == [CREDITS["entropy_filter"], CREDITS["uniform"]]


def test_our_rewards_are_adapted_to_the_columns_of_a_data_set(tmp_path: Path):
    rewards = [REWARDS["think_format"], trl_reward("exact_match"), brevity]
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, reward_funcs=rewards, max_steps=1)
    assert trainer.reward_func_names == ["think_format", "exact_match", "brevity"]
    trainer.train()
    texts = ["<think>a</think>b", "b", "3", "3"]
    columns = {"prompts": ["count"] * 4, "completion_ids": [[1]] * 4}
    assert trl_reward("think_format")(completions=texts, **columns) == [1.0, 0.0, 0.0, 0.0]
    exact = trl_reward("exact_match")
    wrapped = [f"<answer>{text}</answer>" for text in ("3", "4", "3", "4")]
    assert exact(completions=wrapped, solution=["3", "3", "4", "4"], **columns) == [1.0, 0.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="reward"):
        trl_reward("exactly")


@pytest.mark.parametrize("prompt_id", [7, None])
def test_prompt_ids_need_not_be_text(prompt_id: int | None, tmp_path: Path):
    rows = [row | {"prompt_id": prompt_id} for row in dataset().to_list()]
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, credit="random_filter", max_steps=1, reward_funcs=even_digits)
    trainer.train_dataset = Dataset.from_list(rows)
    trainer.train()
    assert prompt_key({"prompt_id": 7, "prompt": "a"}) == "7"
    assert prompt_key({"prompt_id": None, "prompt": "a"}) == prompt_key({"prompt": "a"})


def test_rows_without_a_prompt_have_a_key():
    keys = [prompt_key({"environment": name, "level": 1}) for name in ("maze", "chess", "maze")]
    assert keys[0] == keys[2] != keys[1]


def test_turns_without_text_are_empty():
    turns = [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "secret"},
        {"role": "assistant", "content": [{"type": "text", "text": "7"}]},
    ]
    assert completion_text(turns) == "7"
    assert images_of([{"role": "user", "content": None}]) == []
