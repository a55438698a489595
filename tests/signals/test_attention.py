"""Recorded attention mass against whole attention matrices of eager models."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface

from rlassay.signals import attention, attention_mass
from rlassay.signals.attention import AttentionScoring, segment_mass
from tests.signals import make

SINGLE, HALF = 1e-5, 2e-3


def some_segments(batch: dict[str, Tensor], num_segments: int = 4) -> Tensor:
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(0, num_segments, batch["input_ids"].shape, generator=random)
    return ids.masked_fill(batch["attention_mask"] == 0, -1)


CASES = {"llama": (make.llama, make.text_batch), "qwen_vl": (make.qwen_vl, make.qwen_batch)}


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("case", CASES)
def test_mass_equals_eager_attention_and_sums_to_one(case: str, implementation: str):
    model, (batch, length) = CASES[case][0](), CASES[case][1]()
    model.set_attn_implementation(implementation)
    segment_ids = some_segments(batch)

    mass = attention_mass(model, batch, segment_ids, length)

    is_token = batch["attention_mask"][:, -length:].bool()
    assert mass.shape == (3, len(segment_ids), length, 4)
    assert torch.allclose(mass, make.eager_mass(model, batch, segment_ids, length), atol=SINGLE)
    assert torch.allclose(mass.sum(dim=-1), is_token.float().expand(3, -1, -1), atol=SINGLE)


def test_only_the_text_decoder_of_a_llava_model_is_recorded():
    model, processor = make.tiny_vlm()
    inputs = make.vlm_inputs(processor)
    batch = inputs.batch(range(4), torch.device("cpu"))
    segment_ids = some_segments(batch)
    seen = []
    model.model.vision_tower.register_forward_hook(
        lambda module, *_: seen.append((module.config._attn_implementation, model.config._attn_implementation))
    )

    mass = attention_mass(model, batch, segment_ids, inputs.completion_length)

    assert seen == [("sdpa", "sdpa")]
    assert len(mass) == model.config.text_config.num_hidden_layers
    assert torch.allclose(mass, make.eager_mass(model, batch, segment_ids, inputs.completion_length), atol=SINGLE)


def test_in_half_precision_mass_stays_close_to_eager():
    model = make.llama(initializer_range=0.1).to(torch.bfloat16)
    batch, length = make.text_batch()
    segment_ids = some_segments(batch)

    mass = attention_mass(model, batch, segment_ids, length)

    assert mass.dtype == torch.float32
    assert torch.allclose(mass, make.eager_mass(model, batch, segment_ids, length), atol=HALF)


def test_sliding_windows_and_capped_scores_apply_where_the_implementation_applies_them():
    model = make.gemma()
    batch, length = make.text_batch()
    segment_ids = some_segments(batch)
    capped = attention_mass(_with(model, "eager"), batch, segment_ids, length)
    assert torch.allclose(capped, make.eager_mass(model, batch, segment_ids, length), atol=SINGLE)

    # transformers' sdpa drops the cap of a model that has one: the mass is that of the model as it then runs.
    uncapped = attention_mass(_with(model, "sdpa"), batch, segment_ids, length)
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert torch.allclose(uncapped, make.eager_mass(model, batch, segment_ids, length), atol=SINGLE)
    assert not torch.allclose(uncapped, capped, atol=0.01)


def test_attention_sinks_take_their_share():
    model = make.gpt_oss()
    batch, length = make.text_batch()
    segment_ids = some_segments(batch)

    mass = attention_mass(_with(model, "eager"), batch, segment_ids, length)

    assert torch.allclose(mass, make.eager_mass(model, batch, segment_ids, length), atol=SINGLE)
    assert bool((mass.sum(dim=-1) < 0.999).any())


def test_flash_attention_runs_under_its_own_name_and_masks_and_is_recorded_exactly(monkeypatch: pytest.MonkeyPatch):
    names = set()

    def flash(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        # The kernel's semantics: padding from a table of positions, causality and window from the call.
        names.add(module.config._attn_implementation)
        assert mask.shape == batch["attention_mask"].shape
        positions = torch.arange(query.shape[2])
        seen = positions <= positions[:, None]
        if options["sliding_window"] is not None:
            seen = seen & (positions > positions[:, None] - options["sliding_window"])
        seen = seen & mask[:, None, None].bool()
        scores = options["scaling"] * query @ key.repeat_interleave(2, dim=1).transpose(2, 3)
        scores = options["softcap"] * torch.tanh(scores / options["softcap"])
        scores = scores.masked_fill(~seen, torch.finfo(torch.float32).min)
        return (scores.softmax(dim=-1) @ value.repeat_interleave(2, dim=1)).transpose(1, 2), None

    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", flash)
    model = make.gemma()
    batch, length = make.text_batch()
    segment_ids = some_segments(batch)
    model.config._attn_implementation = "flash_attention_2"

    mass = attention_mass(model, batch, segment_ids, length)

    assert names == {"flash_attention_2"}
    assert torch.allclose(mass, make.eager_mass(model, batch, segment_ids, length), atol=SINGLE)


def test_learned_positions_do_not_count_padding():
    model = make.gpt2()
    batch, length = make.text_batch()
    segment_ids = some_segments(batch)
    positions = (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)

    mass = attention_mass(model, batch, segment_ids, length)

    expected = make.eager_mass(model, {**batch, "position_ids": positions}, segment_ids, length)
    assert torch.allclose(mass, expected, atol=SINGLE)


def test_permuting_splitting_and_padding_the_batch_change_nothing():
    model = make.llama()
    batch, length = make.text_batch()
    segment_ids = some_segments(batch)
    whole = attention_mass(model, batch, segment_ids, length)

    order = torch.tensor([2, 0, 1])
    permuted = attention_mass(model, {n: v[order] for n, v in batch.items()}, segment_ids[order], length)
    assert torch.allclose(permuted, whole[:, order], atol=SINGLE)

    parts = [slice(0, 1), slice(1, 3)]
    split = [
        attention_mass(model, {n: v[part] for n, v in batch.items()}, segment_ids[part], length, num_segments=4)
        for part in parts
    ]
    assert torch.allclose(torch.cat(split, dim=1), whole, atol=SINGLE)

    wider = {name: torch.nn.functional.pad(values, (3, 2)) for name, values in batch.items()}
    padded = attention_mass(model, wider, torch.nn.functional.pad(segment_ids, (3, 2), value=-1), length + 2)
    assert torch.allclose(padded[:, :, :length], whole, atol=SINGLE)
    assert not padded[:, :, length:].any()


def test_many_segments_are_allowed_and_layers_come_in_the_order_requested():
    model = make.llama()
    batch, length = make.text_batch()
    every_key = torch.arange(14).expand(3, 14)

    mass = attention_mass(model, batch, every_key, length, layers=[2, 0])

    assert mass.shape == (2, 3, length, 14)
    assert torch.allclose(mass, make.eager_mass(model, batch, every_key, length)[[2, 0]], atol=SINGLE)


def test_a_segment_without_keys_gets_no_mass():
    batch, length = make.text_batch()

    mass = attention_mass(make.llama(), batch, torch.zeros_like(batch["input_ids"]), length, num_segments=3)

    assert mass.shape[-1] == 3
    assert not mass[..., 1:].any()


def test_adapters_checkpointing_and_training_mode_change_nothing_and_are_restored():
    from peft import LoraConfig, get_peft_model

    model = make.llama()
    batch, length = make.text_batch()
    segment_ids = some_segments(batch)
    plain = attention_mass(model, batch, segment_ids, length)
    model.gradient_checkpointing_enable()
    config = LoraConfig(target_modules=["q_proj"], lora_dropout=0.5, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config).train()
    assert torch.allclose(attention_mass(adapted, batch, segment_ids, length), plain, atol=SINGLE)

    adapted.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].weight.data += 0.3
    adapted.model.model.layers[1].mlp.eval()
    modes = [module.training for module in adapted.modules()]
    state = torch.get_rng_state()

    mass = attention_mass(adapted, batch, segment_ids, length)

    assert [module.training for module in adapted.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(mass, plain, atol=0.01)
    assert torch.allclose(
        mass, make.eager_mass(adapted.eval().base_model.model, batch, segment_ids, length), atol=SINGLE
    )


def test_the_model_is_restored_when_a_pass_fails():
    model = make.llama().train()
    batch, length = make.text_batch()

    with pytest.raises(IndexError):
        attention_mass(model, {**batch, "input_ids": batch["input_ids"] + 1000}, some_segments(batch), length)

    assert model.config._attn_implementation == "sdpa"
    assert model.training
    assert "forward" not in vars(model.model)
    assert not attention._RECORDINGS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [1, 7]}, r"layers: \[7\] never attended .*; recorded: \[1\]"),
        ({"completion_length": 14}, r"more than completion_length=14 positions"),
        ({"num_segments": 2}, r"ids up to 3, expected .* below num_segments=2"),
        (
            {"segment_ids": torch.zeros(3, 12, dtype=torch.long)},
            r"attends from 14 positions to 14, but segment_ids has 12",
        ),
    ],
)
def test_shapes_and_layers_that_do_not_fit_are_refused(change: dict[str, Any], message: str):
    batch, length = make.text_batch()
    arguments = {"segment_ids": some_segments(batch), "completion_length": length, **change}

    with pytest.raises(ValueError, match=message):
        attention_mass(make.llama(), batch, **arguments)


def test_attention_without_masks_of_its_own_is_refused():
    batch, length = make.text_batch()
    model = make.llama()
    model.config._attn_implementation = "flex_attention"

    with pytest.raises(ValueError, match=r"attn_implementation: got 'flex_attention', expected eager, sdpa or flash"):
        attention_mass(model, batch, some_segments(batch), length)


def _with(model: Any, implementation: str) -> Any:
    model.set_attn_implementation(implementation)
    return model


NOTHING_HIDDEN = torch.ones(1, 1, 1, 3, dtype=torch.bool)


def one_row(mask: torch.Tensor = NOTHING_HIDDEN, **scoring: float | torch.Tensor) -> list[float]:
    # Scores q k = ln 4, ln 2, ln 2: softmax 1/2, 1/4, 1/4. Segments: the first key, and the two others.
    query = torch.ones(1, 1, 1, 1)
    key = torch.tensor([4.0, 2.0, 2.0]).log().view(1, 1, 3, 1)
    indicator = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
    return segment_mass(query, key, mask, indicator, AttentionScoring(**{"scaling": 1.0, **scoring})).flatten().tolist()


def test_mass_is_the_softmax_over_keys_summed_within_each_segment():
    assert one_row() == pytest.approx([0.5, 0.5])


def test_a_hidden_key_gets_no_mass_under_a_boolean_or_an_additive_mask():
    hidden = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    added = torch.where(hidden, 0.0, torch.finfo(torch.float32).min)

    # 4 : 2
    assert one_row(hidden) == pytest.approx([2 / 3, 1 / 3])
    assert one_row(added) == pytest.approx([2 / 3, 1 / 3])


def test_scores_are_scaled_then_capped():
    # Scaled by 2: ln 16, ln 4, ln 4, that is 16 : 4 + 4.
    assert one_row(scaling=2.0) == pytest.approx([2 / 3, 1 / 3])
    # Capped at 1: tanh(ln 4) = 15/17 and tanh(ln 2) = 3/5.
    first, others = math.exp(15 / 17), 2 * math.exp(3 / 5)
    assert one_row(softcap=1.0) == pytest.approx([first / (first + others), others / (first + others)])


def test_a_sink_takes_mass_to_no_key():
    # A sink of ln 8 beside 4, 2, 2.
    assert one_row(sinks=torch.tensor([math.log(8)])) == pytest.approx([0.25, 0.25])


def test_heads_that_share_keys_are_averaged_and_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch):
    random = torch.Generator().manual_seed(0)
    batch, heads, kv_heads, rows, keys, width = 3, 4, 2, 5, 7, 6
    query = torch.randn(batch, heads, rows, width, generator=random)
    key = torch.randn(batch, kv_heads, keys, width, generator=random)
    mask = torch.rand(batch, 1, rows, keys, generator=random) > 0.3
    mask[..., 0] = True
    indicator = torch.nn.functional.one_hot(torch.randint(0, 8, (batch, keys), generator=random), 8).float()
    arguments = (query, key, mask, indicator, AttentionScoring(scaling=0.5))

    whole = segment_mass(*arguments)
    scores = 0.5 * query @ key.repeat_interleave(2, dim=1).transpose(2, 3)
    expected = scores.masked_fill(~mask, -math.inf).softmax(dim=-1).mean(dim=1) @ indicator
    assert torch.allclose(whole, expected, atol=1e-6)

    for size in (1, 2 * heads * keys, 2 * rows * heads * keys):  # one row; two rows; all rows of two samples
        monkeypatch.setattr(attention, "_SCORES_ON_CPU", size)
        assert torch.allclose(segment_mass(*arguments), whole, atol=1e-6)
