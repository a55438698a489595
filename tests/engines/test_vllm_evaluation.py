"""The evaluation's two engines decode alike, and vLLM's completions depend on their own seeds alone."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rlassay.config.engine import VLLMEngine
from rlassay.config.model import HubModel, Lora, ModelConfig, TinyLM, TinyVLM
from rlassay.evaluation.by_transformers import decode_batch
from rlassay.evaluation.by_vllm import VLLMDecoder
from rlassay.evaluation.decoding import Decoded, Decoding
from rlassay.models.policy import ChatFormat, build_policy, load_policy, peft_config
from tests.engines.qwen import save_qwen
from tests.engines.vllm_process import needs_vllm, vllm_process
from tests.models.hubs import hub, row

pytestmark = [needs_vllm, pytest.mark.filterwarnings("ignore")]

GREEDY = Decoding(sampled=False, temperature=1.0, top_p=1.0, max_completion_length=8, seed=0)
SAMPLED = Decoding(sampled=True, temperature=1.0, top_p=1.0, max_completion_length=8, seed=5)
SHADES = (0, 80, 255, 80)


@pytest.fixture(autouse=True)
def process() -> Iterator[pytest.MonkeyPatch]:
    with vllm_process() as patch:
        yield patch


def lively(model: Any) -> Any:
    """The model with larger weights, so that its completions depend on their prompts."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.mul_(4.0)
    return model


def opened(
    section: ModelConfig, model: Any, processor: Any, folder: Path, weights: Path | None = None, **options: Any
) -> VLLMDecoder:
    return VLLMDecoder(
        model,
        processor,
        section=section,
        weights=weights,
        copy=folder / "copy",
        engine=VLLMEngine(kind="vllm", max_model_length=128, **options),
        batch_size=8,
        on_cpu=True,
    )


def asked(processor: Any, *, images: bool) -> tuple[list[Any], list[list[Image.Image]]]:
    chat = ChatFormat(processor=processor, with_format_instruction=False)
    rows = [row(image="image.png" if images else None) for _ in SHADES]
    rows = [each.model_copy(update={"question": "Which? " * (1 + i % 2)}) for i, each in enumerate(rows)]
    shown = [[Image.new("RGB", (56, 56), (shade, shade, shade))] if images else [] for shade in SHADES]
    return [chat.prompt(each) for each in rows], shown


def ids(completions: list[Decoded]) -> list[list[int]]:
    return [each.ids for each in completions]


@pytest.mark.parametrize("section", [TinyLM(kind="tiny_lm"), TinyVLM(kind="tiny_vlm")], ids=["text", "images"])
def test_built_in_models_decode_as_by_transformers_and_by_their_seeds(section: ModelConfig, tmp_path: Path):
    images = section.kind == "tiny_vlm"
    model, processor = build_policy(section, [row(image="image.png" if images else None)])
    chats, shown = asked(processor, images=images)
    by_vllm = opened(section, lively(model), processor, tmp_path)

    assert by_vllm(chats, shown, GREEDY) == decode_batch(model, processor, chats, shown, GREEDY)

    first = by_vllm(chats, shown, SAMPLED)
    by_vllm(chats[:3], shown[:3], GREEDY)
    assert by_vllm(chats, shown, SAMPLED) == first
    assert by_vllm(chats[:2], shown[:2], SAMPLED) == first[:2]
    assert all(one != other for one, other in zip(first, by_vllm(chats, shown, replace(SAMPLED, seed=9)), strict=True))
    for likeliest in ({"top_k": 1}, {"min_p": 0.999}):
        assert ids(by_vllm(chats, shown, replace(SAMPLED, **likeliest))) == ids(by_vllm(chats, shown, GREEDY))
    with pytest.raises(ValueError, match=r"would cut completions: it takes 128 tokens, and a prompt has \d+, to which"):
        by_vllm(chats, shown, replace(GREEDY, max_completion_length=120))


def test_two_processes_that_share_a_model_decode_as_one(tmp_path: Path, process: pytest.MonkeyPatch):
    process.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # they would be bound to cores of their own
    process.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    section = TinyLM(kind="tiny_lm")
    model, processor = build_policy(section, [row()])
    chats, shown = asked(processor, images=False)
    by_vllm = opened(section, lively(model), processor, tmp_path, tensor_parallel_size=2)

    assert by_vllm.llm.llm_engine.vllm_config.parallel_config.tensor_parallel_size == 2
    assert by_vllm(chats, shown, GREEDY) == decode_batch(model, processor, chats, shown, GREEDY)
    assert by_vllm(chats, shown, SAMPLED) == by_vllm(chats, shown, SAMPLED)
    by_vllm.close()


def test_a_completion_ends_at_the_models_own_end_tokens(tmp_path: Path):
    section = TinyLM(kind="tiny_lm")
    model, processor = build_policy(section, [row()])
    chats, shown = asked(processor, images=False)
    lively(model)
    (never_ended, *_) = decode_batch(model, processor, chats, shown, GREEDY)
    cut = never_ended.ids[2]
    configs: list[Any] = [model.generation_config]
    for config in configs:
        config.eos_token_id = [config.eos_token_id, cut]

    (ended, *_) = opened(section, model, processor, tmp_path)(chats, shown, GREEDY)

    end = never_ended.ids.index(cut) + 1
    assert (ended.ids, ended.finished) == (never_ended.ids[:end], True)


@pytest.mark.parametrize("target", ["all-linear", ("q_proj", "v_proj")], ids=["with the vision tower", "language"])
def test_adapters_decode_as_by_transformers(target: Any, tmp_path: Path):
    from peft import get_peft_model

    targets = target if isinstance(target, str) else r".*language_model.*(q_proj|v_proj)"
    section: HubModel = hub(save_qwen(tmp_path / "hub"), Lora(r=4, target_modules=targets))
    base, processor = build_policy(section, [row(image="image.png")])
    trained: Any = get_peft_model(base, peft_config(section))
    with torch.no_grad():
        for name, weight in trained.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5, generator=torch.Generator().manual_seed(len(name)))
    trained.save_pretrained(tmp_path / "adapter")
    model, _ = load_policy(section, tmp_path / "adapter")
    chats, shown = asked(processor, images=True)
    by_hand = partial(decode_batch, model, processor, chats, shown)
    expected = by_hand(GREEDY)
    plain, _ = build_policy(section, [row(image="image.png")])
    assert ids(decode_batch(plain, processor, chats, shown, GREEDY)) != ids(expected)

    by_vllm: Any = opened(section, model, processor, tmp_path, tmp_path / "adapter")

    assert (by_vllm.policy.adapter is None) == isinstance(target, str)
    assert by_vllm(chats, shown, GREEDY) == expected
