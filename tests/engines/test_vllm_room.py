"""Prompts that leave vLLM no room are refused before the first completion, with all of them counted."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rlassay.config.explain import StudyError
from rlassay.config.model import ClipView
from rlassay.evaluation.by_transformers import processor_inputs
from rlassay.evaluation.generate import run_generate
from rlassay.images import StudyImages
from rlassay.models.policy import ChatFormat
from rlassay.models.prompt_length import prompt_lengths
from rlassay.records import Media, PromptRow
from rlassay.training.rl import run_rl
from rlassay.training.sft import run_sft
from tests.engines.qwen import qwen3_processor, qwen_processor
from tests.engines.vllm_process import needs_torchvision, needs_vllm, vllm_process
from tests.evaluation.tiny import only
from tests.training.short_run import RUN, fresh_layout, load_short, policy_of

pytestmark = pytest.mark.filterwarnings("ignore")
LENGTH = {"rl__max_completion_length": 10, "evaluation__max_completion_length": 6}


def engine(length: int) -> dict[str, Any]:
    return {"kind": "vllm", "max_model_length": length}


@needs_vllm
def test_a_run_and_an_evaluation_are_refused_before_their_first_completion(tmp_path: Path):
    layout = fresh_layout(tmp_path / "results")
    roomy = load_short(tmp_path, **LENGTH, rl__engine=engine(128))
    run_sft(roomy, layout, only(roomy, "sft"))

    tight = load_short(tmp_path, **LENGTH, rl__engine=engine(48))
    refused = r"rl\.engine: vLLM would cut .*: (2|4) of 4 prompts of the split 'train' .* adds 10; expected at most 48"
    with vllm_process(), pytest.raises(StudyError, match=refused):
        run_rl(tight, layout, policy_of(tight))
    assert not list(layout.rollouts(RUN).glob("*"))

    answering = load_short(tmp_path, **LENGTH, evaluation__engine=engine(44))
    refused = r"evaluation\.engine: vLLM would cut .* of the evaluation leave .* adds 6; expected at most 44 together"
    with vllm_process(), pytest.raises(StudyError, match=refused):
        run_generate(answering, layout, only(answering, "sft"), "test")
    assert not layout.completions_part(only(answering, "sft").folder, "test").read_text()


@needs_torchvision
@pytest.mark.parametrize("show", ["frames", "video"])
@pytest.mark.parametrize("make", [qwen_processor, qwen3_processor])
def test_prompts_of_qwen_are_as_long_as_its_processor_makes_them(make: Any, show: str, tmp_path: Path):
    for name, size in (("a", (60, 110)), ("b", (90, 80)), ("strip", (5 * 60, 70))):
        Image.effect_noise(size, 40).convert("RGB").save(tmp_path / f"{name}.png")
    clip = Media(kind="video", path="c.mp4", strip="strip.png", times=(0, 0.5, 1, 1.5, 2), duration=2.5, fps=2.0)
    shown = [(), (Media(path="a.png"),), (Media(path="b.png"), Media(path="a.png")), (clip,), (Media(path="a.png"),)]
    rows = [
        PromptRow(prompt_id=str(index), question="7?" * index, answer="7", media=each)
        for index, each in enumerate(shown)
    ]
    chat = ChatFormat(
        processor=qwen_processor(), with_format_instruction=True, clips=ClipView.model_validate({"show": show})
    )
    images = StudyImages(tmp_path)
    exact = [
        processor_inputs(
            chat.processor, [chat.prompt(row)], [[*images(chat.images(row)), *chat.video_clips(row, images)]]
        )["input_ids"].shape[1]
        for row in rows
    ]
    assert prompt_lengths(rows, chat, tmp_path) == exact
    assert len(set(exact)) == len(rows)
