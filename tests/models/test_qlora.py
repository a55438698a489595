"""Weights in four bits below adapters."""

from typing import Any

import pytest
import torch

from rlassay.config import fingerprints
from rlassay.config.checks import machine
from rlassay.config.model import Lora
from rlassay.models import hub as loading
from rlassay.models.policy import build_policy
from tests.config.studies import problems, study
from tests.models.hubs import hub, text_model

PACKED = {"kind": "hub", "name": "x/y", "lora": {"r": 2, "load_in_4bit": True}}


def installed(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda name: object() if there else None)


def test_without_a_gpu_or_the_library_it_is_refused(monkeypatch: pytest.MonkeyPatch):
    installed(monkeypatch, there=True)
    assert problems(model=PACKED) == [
        "model.lora.load_in_4bit: true, but gpus is 0, and it needs a GPU; set gpus, or false"
    ]
    assert study(model=PACKED, gpus=1).arms["base"].recipe.model.kind == "hub"
    installed(monkeypatch, there=False)
    (problem,) = problems(model=PACKED, gpus=1)
    assert "bitsandbytes is not installed; run `pip install bitsandbytes`" in problem


def test_the_model_is_asked_for_in_four_bits(monkeypatch: pytest.MonkeyPatch, tmp_path):
    asked: list[Any] = []
    plain = loading.AutoModelForCausalLM.from_pretrained

    def from_pretrained(source: str, **options: Any) -> Any:
        asked.append(options.pop("quantization_config", None))
        return plain(source, **options)

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    folder = text_model(tmp_path)
    build_policy(hub(folder, Lora(r=2)), [])
    build_policy(hub(folder, Lora(r=2, load_in_4bit=True)), [])
    assert asked[0] is None
    assert (asked[1].load_in_4bit, asked[1].bnb_4bit_quant_type) == (True, "nf4")
    assert (asked[1].bnb_4bit_use_double_quant, asked[1].bnb_4bit_compute_dtype) == (True, torch.float32)


def test_four_bits_make_another_model_and_leaving_them_out_keeps_its_fingerprint(monkeypatch: pytest.MonkeyPatch):
    installed(monkeypatch, there=True)
    plain, adapted, packed = (
        study(model={"kind": "hub", "name": "x/y", "lora": lora}, gpus=1)
        for lora in (None, {"r": 2, "load_in_4bit": False}, {"r": 2, "load_in_4bit": True})
    )
    ids = [fingerprints.model_id(each, each.arms["base"].recipe) for each in (plain, adapted, packed)]
    assert ids[0] == ids[1] != ids[2]
    assert "load_in_4bit" not in Lora(r=2).model_dump()
