import os
from pathlib import Path
from typing import Any, cast

import pytest

from rlassay.config.model import Lora, TinyLM
from rlassay.models.policy import build_policy, peft_config
from rlassay.models.vllm_engine import Served, check_prompts, served, set_environment
from tests.models.hubs import hub, row, text_model, vision_model


def as_served(section: Any, folder: Path, weights: Path | None = None, *, image: bool = False, adapters: Any = None):
    model, processor = build_policy(section, [row(image="image.png" if image else None)])
    if adapters is not None:
        from peft import get_peft_model

        model = get_peft_model(model, adapters)
    name = getattr(section, "name", None)
    return served(model, processor, name=name, weights=weights, revision=None, copy=folder)


def test_a_hub_model_is_served_from_where_it_is(tmp_path: Path):
    name = text_model(tmp_path / "hub")

    assert as_served(hub(name), tmp_path / "copy") == Served(model=str(name))
    assert as_served(hub(name), tmp_path / "copy", tmp_path / "weights") == Served(model=str(tmp_path / "weights"))
    assert not (tmp_path / "copy").exists()


def test_a_built_in_model_is_served_from_a_copy(tmp_path: Path):
    assert as_served(TinyLM(kind="tiny_lm"), tmp_path / "copy") == Served(model=str(tmp_path / "copy"))
    assert (tmp_path / "copy/config.json").exists()
    assert (tmp_path / "copy/tokenizer.json").exists()


def test_an_adapter_of_the_language_model_is_served_on_its_base(tmp_path: Path):
    section = hub(text_model(tmp_path / "hub"), Lora(r=4))

    found = as_served(section, tmp_path / "copy", tmp_path / "adapter", adapters=peft_config(section))

    assert found == Served(model=section.name, adapter=tmp_path / "adapter", rank=4)


def test_a_reference_named_by_its_adapters_folder_is_served_on_its_base(tmp_path: Path):
    section, folder = hub(text_model(tmp_path / "hub"), Lora(r=4)), str(tmp_path / "adapter")
    from peft import get_peft_model

    model, processor = build_policy(section, [row()])
    model = get_peft_model(model, cast(Any, peft_config(section)))
    found = served(model, processor, name=folder, weights=None, revision=None, copy=tmp_path / "copy")

    assert found == Served(model=section.name, adapter=tmp_path / "adapter", rank=4)


def test_an_adapter_of_the_vision_tower_is_merged_into_a_copy(tmp_path: Path):
    section = hub(vision_model(tmp_path / "hub"), Lora(r=4))

    found = as_served(section, tmp_path / "copy", tmp_path / "adapter", image=True, adapters=peft_config(section))

    assert found == Served(model=str(tmp_path / "copy"))
    assert (tmp_path / "copy/model.safetensors").exists()


def test_a_prompt_that_was_read_differently_is_an_error():
    check_prompts([[1, 2]], [(1, 2)])

    with pytest.raises(ValueError, match="vLLM read a prompt of 3 tokens where the processor writes 2"):
        check_prompts([[1, 2]], [[1, 2, 2]])


def test_the_environment_of_the_user_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "environ", {"VLLM_CPU_KVCACHE_SPACE": "4"})

    set_environment(on_cpu=True)

    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
