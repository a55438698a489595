import re

import pytest
from peft import get_peft_model

from rlassay.config.model import Lora, Tune
from rlassay.models.policy import build_policy, peft_config
from rlassay.models.tuning import PARTS, freeze, frozen_modules, part_of
from tests.config.studies import problems, study
from tests.models.hubs import SMALLEST, hub, row, text_model, vision_model

PUBLISHED = Tune()
LORA = "base_model.model.model.visual.blocks.0.attn.qkv.lora_A.default.weight"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.visual.blocks.3.attn.qkv.weight", "vision"),
        ("model.visual.merger.mlp.0.bias", "connector"),  # Qwen-VL: inside the tower
        ("model.visual.deepstack_merger_list.1.norm.weight", "connector"),
        ("model.vision_tower.encoder.layers.0.mlp.fc1.weight", "vision"),
        ("model.multi_modal_projector.linear_1.weight", "connector"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "language_model"),
        ("lm_head.weight", "language_model"),
        ("model.language_model.visualised.weight", "language_model"),  # a part of a word is no name
        (LORA, "vision"),
    ],
)
def test_a_name_belongs_to_one_part(name: str, part: str):
    assert part_of(name) == part
    assert [each for each, pattern in PARTS.items() if re.fullmatch(pattern, name)] == [part]


def test_the_defaults_are_those_of_the_published_script():
    assert PUBLISHED.model_dump() == {"language_model": True, "vision": False, "connector": True}


@pytest.mark.parametrize("chosen", ["language_model", "vision", "connector"])
def test_only_the_named_part_trains(chosen: str):
    model, _ = build_policy(SMALLEST, [row(image="x.png")])
    freeze(model, Tune(**{part: part == chosen for part in PARTS}))
    trained = {part_of(name) for name, each in model.named_parameters() if each.requires_grad}
    frozen = {part_of(name) for name, each in model.named_parameters() if not each.requires_grad}
    assert (trained, frozen) == ({chosen}, set(PARTS) - {chosen})


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "linear_1")])
def test_adapters_are_in_the_named_parts_alone(targets: str | tuple[str, ...], tmp_path):
    config = hub(vision_model(tmp_path), Lora(r=2, target_modules=targets))
    model, _ = build_policy(config, [])
    everywhere = get_peft_model(build_policy(config, [])[0], peft_config(config))
    assert {part_of(name) for name, _ in everywhere.named_parameters() if "lora_" in name} == set(PARTS)
    adapted = get_peft_model(model, peft_config(config, PUBLISHED))
    assert {part_of(name) for name, each in adapted.named_parameters() if each.requires_grad} == {
        "connector",
        "language_model",
    }
    assert not [name for name, _ in adapted.named_parameters() if "lora_" in name and part_of(name) == "vision"]


def test_adapters_of_a_warm_start_are_frozen_outside_of_the_named_parts(tmp_path):
    config = hub(vision_model(tmp_path), Lora(r=2))
    adapted = get_peft_model(build_policy(config, [])[0], peft_config(config))
    freeze(adapted, PUBLISHED)
    trained = [name for name, each in adapted.named_parameters() if each.requires_grad]
    assert {part_of(name) for name in trained} == {"connector", "language_model"}
    assert all("lora_" in name for name in trained)


def test_a_model_that_reads_text_only_has_no_parts(tmp_path):
    model, _ = build_policy(hub(text_model(tmp_path)), [])
    with pytest.raises(ValueError, match=r"rl.tune: LlamaForCausalLM has no connector and no vision; its modules are"):
        freeze(model, PUBLISHED)


def test_without_flags_everything_trains():
    model, _ = build_policy(SMALLEST, [row(image="x.png")])
    before = [each.requires_grad for each in model.parameters()]
    freeze(model, None)
    assert [each.requires_grad for each in model.parameters()] == before == [True] * len(before)
    assert frozen_modules(None) is None


def test_a_study_that_would_train_nothing_is_refused():
    nothing = dict.fromkeys(PARTS, False)
    assert problems(rl__tune=nothing) == [
        "rl.tune: language_model, vision and connector are all false: nothing would train; set one to true"
    ]
    assert "tiny_lm has no vision tower" in problems(rl__tune={}, model={"kind": "tiny_lm"})[0]


def test_leaving_it_out_keeps_the_fingerprint():
    assert "tune" not in study().arms["base"].recipe.rl.model_dump()
