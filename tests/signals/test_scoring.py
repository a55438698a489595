"""Scoring in pieces against the whole logits of the model."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from rlassay.signals import (
    ModelInputs,
    ScoringConfig,
    TokenScores,
    attention_mass,
    scoring,
    segment_ids,
    teacher_forced,
    with_images,
)
from tests.signals import make

CLOSE = 1e-5


@pytest.fixture(scope="module")
def vlm() -> tuple[Any, Any]:
    return make.tiny_vlm()


def whole(model: Any, inputs: ModelInputs, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs over the vocabulary of the queries that predicted the completion, and the completion's mask."""
    batch = inputs.batch(range(len(inputs)), torch.device("cpu"))
    length = inputs.completion_length
    with torch.no_grad():
        logits = model(**batch).logits[:, -length - 1 : -1]
    return (logits / temperature).log_softmax(dim=-1), batch["attention_mask"][:, -length:].bool()


def masked(processor: Any, inputs: ModelInputs) -> ModelInputs:
    black = [Image.new("RGB", (16, 16))]
    return with_images(processor, inputs, [black if has_image else None for has_image in inputs.has_image])


def test_log_probs_and_entropy_equal_those_of_the_whole_logits_at_the_sampling_temperature(vlm: tuple[Any, Any]):
    model, processor = vlm
    inputs = make.vlm_inputs(processor)

    scores = teacher_forced(model, inputs, ScoringConfig(temperature=0.7))

    log_probs, is_token = whole(model, inputs, temperature=0.7)
    ids = inputs.by_token["input_ids"][:, -inputs.completion_length :]
    logps = log_probs.gather(2, ids[..., None])[..., 0]
    entropies = -(log_probs.exp() * log_probs).sum(dim=-1)
    assert torch.allclose(scores.per_token_logps, logps * is_token, atol=CLOSE)
    assert torch.allclose(scores.entropy_BT, entropies * is_token, atol=CLOSE)
    assert scores.attention_mass is None
    assert scores.masked_per_token_logps is None


@pytest.mark.parametrize("model", [make.gemma(), make.gpt2()], ids=["capped logits", "learned positions"])
def test_the_models_own_head_makes_the_logits(model: Any):
    batch, length = make.text_batch()
    inputs = ModelInputs(
        by_token=batch, by_image=({},) * 3, completion_length=length, system_lengths=(0,) * 3, prompts=(0, 1, 2)
    )
    batch["position_ids"] = (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    log_probs, is_token = whole(model, inputs)

    scores = teacher_forced(
        model, replace(inputs, by_token={n: batch[n] for n in ("input_ids", "attention_mask")}), ScoringConfig()
    )

    logps = log_probs.gather(2, batch["input_ids"][:, -length:, None])[..., 0]
    assert torch.allclose(scores.per_token_logps, logps * is_token, atol=CLOSE)


def everything(vlm: tuple[Any, Any], batch_size: int | None) -> TokenScores:
    model, processor = vlm
    inputs = make.vlm_inputs(processor)
    return teacher_forced(
        model,
        inputs,
        ScoringConfig(batch_size=batch_size, divergence="kl"),
        segment_ids=segment_ids(inputs, processor, model.config),
        masked_inputs=masked(processor, inputs),
    )


@pytest.mark.parametrize("batch_size", [1, 3, 9])
def test_batch_size_and_piece_size_do_not_change_the_scores(
    vlm: tuple[Any, Any], batch_size: int, monkeypatch: pytest.MonkeyPatch
):
    expected = everything(vlm, None)
    monkeypatch.setattr(scoring, "_LOGITS_AT_ONCE", 1)

    scores = everything(vlm, batch_size)

    for name, values in vars(expected).items():
        assert torch.allclose(vars(scores)[name], values, atol=CLOSE), name


def test_attention_mass_comes_from_the_same_pass(vlm: tuple[Any, Any]):
    model, processor = vlm
    inputs = make.vlm_inputs(processor)
    segments = segment_ids(inputs, processor, model.config)
    batch = inputs.batch(range(4), torch.device("cpu"))
    plain = teacher_forced(model, inputs, ScoringConfig())

    scores = teacher_forced(model, inputs, ScoringConfig(), segment_ids=segments)

    assert torch.equal(scores.per_token_logps, plain.per_token_logps)
    assert scores.attention_mass is not None
    direct = attention_mass(model, batch, segments, inputs.completion_length)
    assert torch.allclose(scores.attention_mass, direct, atol=CLOSE)
    is_token = batch["attention_mask"][:, -inputs.completion_length :].float()
    assert torch.allclose(scores.attention_mass.sum(dim=-1), is_token.expand(3, -1, -1), atol=CLOSE)


@pytest.mark.parametrize("kind", ["kl", "js"])
def test_masked_images_are_scored_for_samples_with_an_image(vlm: tuple[Any, Any], kind: str):
    model, processor = vlm
    inputs = make.vlm_inputs(processor)
    blacked = masked(processor, inputs)

    scores = teacher_forced(model, inputs, ScoringConfig(divergence=kind), masked_inputs=blacked)

    (p, is_token), (q, _) = whole(model, inputs), whole(model, blacked)
    m = ((p.exp() + q.exp()) / 2).log()
    kls = [
        torch.nn.functional.kl_div(b, a, log_target=True, reduction="none").sum(-1) for a, b in ((p, q), (p, m), (q, m))
    ]
    expected = {"kl": kls[0], "js": (kls[1] + kls[2]) / 2}[kind] * is_token
    assert scores.divergence_BT is not None
    assert scores.masked_per_token_logps is not None
    assert torch.allclose(scores.divergence_BT, expected, atol=CLOSE)
    assert bool((scores.divergence_BT[[0, 1, 3]].amax(dim=1) > 1e-6).all())
    ids = inputs.by_token["input_ids"][:, -inputs.completion_length :]
    assert torch.allclose(scores.masked_per_token_logps, q.gather(2, ids[..., None])[..., 0] * is_token, atol=CLOSE)
    # The third sample has no image.
    assert torch.equal(scores.masked_per_token_logps[2], scores.per_token_logps[2])
    assert not scores.divergence_BT[2].any()


def test_the_mean_of_k3_estimates_the_exact_divergence(vlm: tuple[Any, Any]):
    # E_p[q/p - 1 - ln(q/p)] = KL(p, q), over the tokens that p would sample.
    model, processor = vlm
    inputs = make.vlm_inputs(processor, samples=(0,))
    blacked = masked(processor, inputs)
    exact = teacher_forced(model, inputs, ScoringConfig(divergence="kl"), masked_inputs=blacked).divergence_BT
    (p, _), (q, _) = whole(model, inputs), whole(model, blacked)

    k3 = (p.exp() * ((q - p).exp() - (q - p) - 1)).sum(dim=-1)

    assert exact is not None
    assert torch.allclose(exact, k3, atol=CLOSE)


def test_the_models_mode_and_the_random_state_are_left_unchanged(vlm: tuple[Any, Any]):
    model, processor = vlm
    inputs = make.vlm_inputs(processor)
    expected = teacher_forced(model.eval(), inputs, ScoringConfig())
    model.model.language_model.layers[0].self_attn.attention_dropout = 0.5
    model.train()
    state = torch.get_rng_state()

    scores = teacher_forced(model, inputs, ScoringConfig())

    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert torch.equal(scores.per_token_logps, expected.per_token_logps)
    model.eval()


def test_a_divergence_needs_masked_images(vlm: tuple[Any, Any]):
    model, processor = vlm

    with pytest.raises(ValueError, match=r"divergence: got 'kl' without masked_inputs"):
        teacher_forced(model, make.vlm_inputs(processor), ScoringConfig(divergence="kl"))


def test_a_uniform_model_has_the_entropy_of_its_vocabulary():
    batch, length = make.text_batch()
    model = make.llama()
    model.lm_head.weight.data.zero_()
    inputs = ModelInputs(
        by_token=batch, by_image=({},) * 3, completion_length=length, system_lengths=(0,) * 3, prompts=(0, 1, 2)
    )

    scores = teacher_forced(model, inputs, ScoringConfig())

    is_token = batch["attention_mask"][:, -length:].float()
    assert torch.allclose(scores.entropy_BT, math.log(61) * is_token, atol=CLOSE)
    assert torch.allclose(scores.per_token_logps, -math.log(61) * is_token, atol=CLOSE)
