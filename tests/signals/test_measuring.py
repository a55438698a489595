"""Attention metrics per completion, worked by hand, and random numbers per completion."""

import math

import pytest
import torch

from rlassay.signals import draws
from rlassay.signals.measuring import (
    SignalBatch,
    attention_metrics,
    columns_of,
    completion_signals,
    generator,
    summarise_attention,
)
from rlassay.signals.segments import vision_keys

TEXT, VISION, SYSTEM, SPECIAL, GENERATED = range(5)
# One completion of two tokens after a prompt of 1 system, 4 image and 2 text tokens; one without an image, padded.
SEGMENTS = torch.tensor(
    [
        [SYSTEM, VISION, VISION, VISION, VISION, TEXT, TEXT, GENERATED, GENERATED],
        [-1, -1, -1, -1, SYSTEM, TEXT, TEXT, GENERATED, -1],
    ]
)


def mass(*layers: list[tuple[float, float]]) -> torch.Tensor:
    """Mass (text, vision) of the first completion's two rows in each layer; the second's single row has text only."""
    of_rows = torch.zeros(len(layers), 2, 2, 5)
    for layer, rows in enumerate(layers):
        for row, (text, vision) in enumerate(rows):
            of_rows[layer, 0, row, TEXT], of_rows[layer, 0, row, VISION] = text, vision
        of_rows[layer, 1, 0, TEXT] = 0.5
    return of_rows


THREE_LAYERS = mass([(0.2, 0.2), (0.2, 0.2)], [(0.4, 0.1), (0.0, 0.1)], [(0.6, 0.2), (0.3, 0.4)])


def test_layers_are_averaged_and_rows_summed_before_the_ratio():
    summary = summarise_attention(THREE_LAYERS, SEGMENTS, scheme="thirds", dominance="late").per_completion
    # Late is the third layer: text .9 / 2 tokens, vision .6 / 4 tokens. All: 1.7 / 3 / 2 against 1.2 / 3 / 4.
    assert summary["modality_dominance/early"][0].item() == pytest.approx(2.0)
    assert summary["modality_dominance/middle"][0].item() == pytest.approx(4.0)
    assert summary["modality_dominance/late"][0].item() == pytest.approx(3.0)
    assert summary["modality_dominance/all"][0].item() == pytest.approx(1.7 * 4 / (1.2 * 2))
    # Late: text has .6 of the mass and 2 of 6 tokens.
    assert summary["attention_efficiency_text/late"][0].item() == pytest.approx(1.8)
    assert summary["attention_efficiency_vision/late"][0].item() == pytest.approx(0.6)
    assert (summary["text_tokens"].tolist(), summary["vision_tokens"].tolist()) == ([2.0, 2.0], [4.0, 0.0])


@pytest.mark.parametrize(
    ("dominance", "expected"),
    [("late", [6.0, 1.5]), (1, [6.0, 1.5]), (2, [1.0 * 4 / (0.3 * 2), 0.3 * 4 / (0.5 * 2)]), ("early", [2.0, 2.0])],
)
def test_each_token_has_the_dominance_of_the_row_that_predicted_it(dominance, expected):
    summary = summarise_attention(THREE_LAYERS, SEGMENTS, scheme="thirds", dominance=dominance)
    assert summary.dominance_BT[0].tolist() == pytest.approx(expected)
    assert torch.isnan(summary.dominance_BT[1]).all()  # no image


def test_more_last_layers_than_the_model_has_take_all():
    summary = summarise_attention(THREE_LAYERS, SEGMENTS, scheme="thirds", dominance=9)
    everything = summarise_attention(THREE_LAYERS, SEGMENTS, scheme="thirds", dominance="all")
    assert torch.equal(summary.dominance_BT[0], everything.dominance_BT[0])


def test_a_model_with_too_few_layers_has_no_early_ones():
    summary = summarise_attention(THREE_LAYERS[:2], SEGMENTS, scheme="thirds", dominance="late")
    assert "modality_dominance/early" not in summary.per_completion
    with pytest.raises(ValueError, match="'early' has no layer in a model of 2"):
        summarise_attention(THREE_LAYERS[:2], SEGMENTS, scheme="thirds", dominance="early")


def test_rewards_get_the_defined_metrics():
    summary = summarise_attention(THREE_LAYERS, SEGMENTS, scheme="thirds", dominance="late")
    measured = SignalBatch(has_image_B=torch.tensor([True, False]), attention=summary)
    first, second = completion_signals(measured)
    assert first["modality_dominance/late"] == pytest.approx(3.0)
    assert second == {"text_tokens": 2.0, "vision_tokens": 0.0}
    columns = columns_of([first, second, {}])
    assert math.isnan(columns["modality_dominance/late"][1])
    assert columns["vision_tokens"][:2].tolist() == [4.0, 0.0]
    assert columns_of([{}, {}]) == {}


def test_metrics_are_means_over_completions_with_an_image():
    columns = {
        "modality_dominance/late": torch.tensor([1.0, 2.0**0.5, 4.0, math.nan, math.inf]),
        "attention_efficiency_text/late": torch.tensor([1.0, 1.5, 2.0, math.nan, math.nan]),
        "attention_efficiency_vision/late": torch.tensor([1.0, 0.5, 0.0, math.nan, math.nan]),
        "text_tokens": torch.tensor([2.0, 4.0]),
        "vision_tokens": torch.tensor([4.0, 0.0]),
    }
    metrics = attention_metrics(columns, ratio=2.0)
    assert metrics["attention/late/mdi"] == pytest.approx((1 + 2**0.5 + 4) / 3)
    assert metrics["attention/late/aei_text"] == pytest.approx(1.5)
    # With R = 2: balance 1 at 1, .5 at sqrt 2, 0 at 4 and beyond.
    assert metrics["attention/late/mdi_balance"] == pytest.approx(1.5 / 4)
    assert metrics["attention/late/mdi_penalty"] == pytest.approx(1 - 1.5 / 4)
    assert metrics["attention/text_tokens"] == 3.0
    assert "attention/early/mdi" not in metrics
    assert attention_metrics({}, ratio=2.0) == {}


def test_image_tokens_are_numbered_in_each_sample():
    keys = vision_keys(SEGMENTS, range(2))
    assert keys[0].tolist() == [-1, 0, 1, 2, 3, -1, -1, -1, -1]
    assert set(keys[1].tolist()) == {-1}


def test_a_completion_draws_the_same_numbers_in_any_batch_and_of_any_length():
    together = draws(3, 10, ["a", "a", "b"], [0, 1, 0], 7)

    assert together.shape == (3, 7)
    assert torch.equal(together[[2, 0]], draws(3, 10, ["b", "a"], [0, 0], 7))
    assert torch.equal(together[:, :5], draws(3, 10, ["a", "a", "b"], [0, 1, 0], 5))


OTHERS = [
    (4, 10, "a", 0, "x"),
    (3, 11, "a", 0, "x"),
    (3, 10, "b", 0, "x"),
    (3, 10, "a", 1, "x"),
    (3, 10, "a", 0, "y"),
    (31, 0, "a", 0, "x"),
]


@pytest.mark.parametrize("other", OTHERS)
def test_seed_step_prompt_sample_and_purpose_all_matter(other: tuple[int, int, str, int, str]):
    assert generator(3, 10, "a", 0, "x").random() != generator(*other).random()


def test_random_numbers_are_the_same_on_every_machine():
    # Recorded once: other numbers would change every run.
    assert generator(3, 10, "a", 0, "draws").integers(0, 10**6, 3).tolist() == [912208, 612931, 671023]


def test_draws_are_uniform():
    numbers = draws(1, 1, [str(index) for index in range(100)], [0] * 100, 1000)

    assert numbers.dtype == torch.float32
    assert 0 <= float(numbers.min()) < 1e-3
    assert 1 - 1e-3 < float(numbers.max()) < 1
    # Standard error of a mean of 100,000: 0.0009.
    assert float(numbers.mean()) == pytest.approx(0.5, abs=0.005)
