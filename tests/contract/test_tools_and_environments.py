"""Tools that answer with images, and environments that own prompt and reward, through TRL's own loops."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import LlavaForConditionalGeneration

from tests.contract.rendered import entropy_of_trl, sampled, tokenizer, trainer_of
from tests.signals import make

pytestmark = pytest.mark.filterwarnings("ignore:The tokenizer has a legacy:FutureWarning")
SCHEMA = {"type": "object"}
"""Any: parsing is replaced in these tests."""


@pytest.fixture(autouse=True)
def _no_warning_of_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


def call_once_each(monkeypatch: pytest.MonkeyPatch, completions: int) -> None:
    """Take the first turn of each completion as a call of the first tool, and every later one as plain text."""
    turns = 0

    def parsed(words: Any, ids: list[int], tools: Any = None, **rest: Any) -> dict[str, Any]:
        nonlocal turns
        turns += 1
        turn: dict[str, Any] = {"role": "assistant", "content": words.decode(ids)}
        if turns <= completions:
            call = {"name": tools[0].__name__, "arguments": {}}
            turn["tool_calls"] = [{"type": "function", "function": call}]
        return turn

    monkeypatch.setattr("trl.trainer.grpo_trainer.parse_response", parsed)


class WithTokenTypes(LlavaForConditionalGeneration):
    """The built-in model with the argument that TRL gives to any model without an image grid after a tool's image."""

    def prepare_inputs_for_generation(self, *args: Any, token_type_ids: Any = None, **kwargs: Any) -> dict[str, Any]:
        return super().prepare_inputs_for_generation(*args, **kwargs)


def keep_turns_short(trainer: Any) -> None:
    """End each turn after six tokens; a random model ends none, and TRL drops answers that no longer fit."""
    generate = trainer._generate_single_turn

    def short(*args: Any, **options: Any) -> tuple[list[list[int]], Any]:
        ids, logps = generate(*args, **options)
        return [each[:6] for each in ids], logps

    trainer._generate_single_turn = short


def assert_entropy_is_that_of_trl(trainer: Any, output: dict[str, Any]) -> torch.Tensor:
    theirs = entropy_of_trl(trainer, output)
    mask = output["completion_mask"].bool()
    ours = trainer.xp_batch.measured.entropy_BT
    ours = torch.nn.functional.pad(ours, (0, mask.shape[1] - ours.shape[1]))
    torch.testing.assert_close(ours[mask], theirs[mask], atol=1e-5, rtol=0)
    return ours


class Lever:
    """An environment whose reward is the number of pulls."""

    def reset(self, **row: Any) -> str:
        self.pulls = 0
        return "w1 w2"

    def pull(self) -> str:
        """Pull the lever."""
        self.pulls += 1
        return "w3 w4"

    def get_reward(self) -> float:
        return float(self.pulls)


class Bell:
    """An environment whose reward is constant."""

    def reset(self, **row: Any) -> str:
        return "w5"

    def ring(self) -> str:
        """Ring the bell."""
        return "w6 w7 w8"

    def get_reward(self) -> float:
        return -2.0


def of_environments(folder: Path) -> Any:
    words = tokenizer()
    words.response_schema = SCHEMA
    rows = Dataset.from_list([{"environment": "lever"}, {"environment": "bell"}])
    trainer = trainer_of(
        "llama",
        folder,
        {"max_completion_length": 24},
        environment_factory={"lever": Lever, "bell": Bell},
        reward_funcs=None,
        train_dataset=rows,
        processing_class=words,
    )
    keep_turns_short(trainer)
    return trainer


def test_rows_with_only_an_environment_are_sampled_scored_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    call_once_each(monkeypatch, 8)
    trainer = of_environments(tmp_path)
    output = sampled(trainer)
    assert trainer.xp_batch.rewards.names == ["Lever", "Bell"]
    # Four completions of each environment, which alone scores them.
    assert trainer.xp_batch.rewards.raw[:4, 0].tolist() == [1.0] * 4
    assert trainer.xp_batch.rewards.raw[4:, 1].tolist() == [-2.0] * 4
    assert torch.isnan(trainer.xp_batch.rewards.raw).sum() == 8
    assert_entropy_is_that_of_trl(trainer, output)
    # What the environments answered has no credit.
    written = output["completion_mask"].bool() & ~output["tool_mask"].bool()
    assert (written.sum(dim=1) > 0).all()
    assert not output["advantages"][written].any()
    assert not trainer.xp_batch.token_signals.completion_mask[written].any()


def test_environments_alone_are_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    call_once_each(monkeypatch, 8)
    trainer = of_environments(tmp_path)
    trainer.train()
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    assert logged["rewards/Lever/mean"] + 0.0 == pytest.approx(1.0)
    assert logged["rewards/Bell/mean"] == pytest.approx(-2.0)


def test_images_that_tools_add_are_seen_by_the_signals_of_their_own_completion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[Image.Image] = []

    def draw() -> list[dict[str, Any]]:
        """Draw a picture."""
        picture = Image.new("RGB", (16, 16), "white")
        picture.paste("black", (0, 0, 2 * len(drawn) + 1, 9))
        drawn.append(picture)
        return [{"type": "image", "image": picture}, {"type": "text", "text": "larger?"}]

    call_once_each(monkeypatch, 8)
    model, processor = make.tiny_vlm()
    model.__class__ = WithTokenTypes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.nn.init.normal_(model.lm_head.weight, std=0.05)
    processor.tokenizer.response_schema = SCHEMA
    calls = "{% for call in message['tool_calls'] or [] %}{{ call['function'] }}{% endfor %}"
    end = "{% if message['role'] == 'assistant' %}"
    processor.chat_template = processor.chat_template.replace(end, calls + end)
    # A sampled placeholder would have no image.
    settings = {"max_completion_length": 96, "generation_kwargs": {"suppress_tokens": [processor.image_token_id]}}
    trainer = trainer_of("vlm", tmp_path, settings, tools=[draw], model=model, processing_class=processor)
    keep_turns_short(trainer)
    output = sampled(trainer)
    batch = trainer.xp_batch
    assert len(drawn) == 8
    assert [len(images) for images in batch.images] == [2] * 8
    assert all(images[1] is picture for images, picture in zip(batch.images, drawn, strict=True))
    ours = assert_entropy_is_that_of_trl(trainer, output)

    # Under the pictures of other completions the same tokens have another entropy.
    batch.tool_images = [*batch.tool_images[1:], batch.tool_images[0]]
    trainer._xp_measure(batch)
    mask = output["completion_mask"].bool() & output["tool_mask"].bool()
    others = torch.nn.functional.pad(batch.measured.entropy_BT, (0, mask.shape[1] - batch.measured.entropy_BT.shape[1]))
    assert (others - ours)[mask].abs().max() > 1e-4
