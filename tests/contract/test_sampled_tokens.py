"""Signals are measured on the tokens that TRL sampled from, and counted where its loss counts them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rlassay.training import SignalPlan
from tests.contract.rendered import MODELS, conversations, entropy_of_trl, sampled, tokenizer, trainer_of

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "without thinking": {"chat_template_kwargs": {"enable_thinking": False}},
    "padded to a multiple": {"pad_to_multiple_of": 8},
    "a temperature": {"temperature": 0.6},
}


@pytest.fixture(autouse=True)
def _no_warning_of_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL warns of `rollout_func` and environments."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


def assert_entropy_is_that_of_trl(trainer: Any, output: dict[str, Any]) -> None:
    theirs = entropy_of_trl(trainer, output)
    mask = output["completion_mask"].bool()
    ours = trainer.xp_batch.measured.entropy_BT
    ours = torch.nn.functional.pad(ours, (0, mask.shape[1] - ours.shape[1]))
    torch.testing.assert_close(ours[mask], theirs[mask], atol=1e-5, rtol=0)
    assert theirs[mask].std() > 1e-3


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", [*MODELS, "vlm"])
def test_measured_entropy_is_that_of_the_loss(kind: str, option: str, tmp_path: Path):
    trainer = trainer_of(kind, tmp_path, OPTIONS[option])
    assert_entropy_is_that_of_trl(trainer, sampled(trainer))


def test_without_thinking_the_prompt_has_other_tokens(tmp_path: Path):
    lengths = []
    for option in ("as it is", "without thinking"):
        trainer = trainer_of("llama", tmp_path, OPTIONS[option])
        sampled(trainer)
        lengths.append(len(trainer.xp_batch.prompt_tokens[0]))
    assert lengths[1] == lengths[0] + 2


def own_rollouts(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """Prompts that no template makes, and completions whose third to fifth tokens an environment wrote."""
    prompt_ids = [[9 + index % 2, 20, 30] for index in range(len(prompts))]
    completion_ids = [[11 + index, 12, 40, 41, 42, 13 + index, 1] for index in range(len(prompts))]
    own = [[1, 1, 0, 0, 0, 1, 1]] * len(prompts)
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": completion_ids,
        "logprobs": [[0.0] * len(each) for each in completion_ids],
        "env_mask": own,
    }


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_prompts_of_a_rollout_function_are_those_measured(kind: str, tmp_path: Path):
    trainer = trainer_of(kind, tmp_path, rollout_func=own_rollouts)
    output = sampled(trainer)
    assert output["prompt_ids"][0].tolist()[-3:] == [9, 20, 30]
    assert_entropy_is_that_of_trl(trainer, output)


def test_tokens_of_an_environment_get_no_credit_and_take_part_in_no_filter(tmp_path: Path):
    trainer = trainer_of("llama", tmp_path, rollout_func=own_rollouts)
    output = sampled(trainer)
    mask = output["completion_mask"] * output["tool_mask"]
    batch = trainer.xp_batch
    assert torch.equal(batch.token_signals.completion_mask, mask)
    assert mask.sum(dim=1).tolist() == [4] * 8
    # A fifth of 4 own tokens is 1 token of each completion, and it is the one of the highest entropy among them.
    selected = batch.credit.selected_BT
    assert selected.sum(dim=1).tolist() == [1] * 8
    own_entropy = batch.token_signals.entropy_BT.masked_fill(mask == 0, -1.0)
    assert torch.equal(selected.int().argmax(dim=1), own_entropy.argmax(dim=1))
    assert not output["advantages"][mask == 0].any()


def test_attention_of_a_completion_leaves_out_what_tools_wrote(tmp_path: Path):
    from rlassay.signals import ScoringConfig
    from rlassay.signals.measuring import RolloutBatch, SignalComputer
    from tests.signals import make

    model, processor = make.tiny_vlm()
    picture = make.Image.new("RGB", (16, 16), "red")
    prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "larger?"}]}]
    computer = SignalComputer(processor, SignalPlan(attention=True), frozenset(), ScoringConfig(), 0)

    def dominance(ids: list[int], own: list[int]) -> float:
        batch = RolloutBatch(
            prompts=[prompt], images=[[picture]], completion_ids=[ids], prompt_ids=["p"], samples=[0], step=1,
            own_tokens=[own],
        )  # fmt: skip
        attention = computer(model, batch).attention
        assert attention is not None
        return attention.per_completion["modality_dominance/all"].item()

    assert dominance([20, 21, 22, 23], [1, 1, 0, 0]) == pytest.approx(dominance([20, 21], [1, 1]), rel=1e-4)
    assert dominance([20, 21, 22, 23], [1, 1, 1, 1]) != pytest.approx(dominance([20, 21], [1, 1]), rel=1e-4)


def find(query: str) -> str:
    """Find a word.

    Args:
        query: the word.
    """
    return query


@pytest.mark.filterwarnings("ignore:The tokenizer has a legacy:FutureWarning")
def test_prompts_with_tools_are_measured_with_their_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def plain(words: Any, ids: list[int], **rest: Any) -> dict[str, Any]:
        return {"role": "assistant", "content": words.decode(ids)}

    monkeypatch.setattr("trl.trainer.grpo_trainer.parse_response", plain)
    words = tokenizer()
    words.response_schema = {"type": "object"}
    trainer = trainer_of("llama", tmp_path, tools=[find], processing_class=words)
    output = sampled(trainer)
    assert trainer.xp_batch.prompt_tokens[0][0] == words.convert_tokens_to_ids("tool")
    assert_entropy_is_that_of_trl(trainer, output)


def test_a_turn_without_content_is_no_obstacle(tmp_path: Path):
    rows = [
        {"prompt": [{"role": "user", "content": "w1"}, {"role": "assistant", "content": None}, *row["prompt"]]}
        for row in conversations()
    ]
    from datasets import Dataset

    trainer = trainer_of("llama", tmp_path, train_dataset=Dataset.from_list(rows), signals=SignalPlan(attention=True))
    assert_entropy_is_that_of_trl(trainer, sampled(trainer))
