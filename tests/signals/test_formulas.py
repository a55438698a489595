"""Formulas of the signals against values worked by hand, identities and bounds."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlassay.signals.formulas import (
    attention_efficiency,
    entropy,
    js,
    kl,
    mean_perception,
    modality_dominance,
    perception,
    token_logps,
)
from tests.credit.make import MASK, NAN

LN2, LN3 = math.log(2), math.log(3)
MASSES = st.lists(st.floats(1e-3, 10.0), min_size=3, max_size=3)
COUNTS = st.lists(st.integers(1, 500), min_size=3, max_size=3)
HALF, QUARTERS = [0.5, 0.5, 0.0], [0.25, 0.75, 0.0]


def dominance(text: float, vision: float, text_tokens: int, vision_tokens: int) -> float:
    masses = torch.tensor([text, vision], dtype=torch.float64)
    return modality_dominance(masses[0], masses[1], torch.tensor(text_tokens), torch.tensor(vision_tokens)).item()


def test_dominance_is_density_over_density():
    assert dominance(0.6, 0.3, 20, 100) == pytest.approx((0.6 / 20) / (0.3 / 100))  # 10
    assert dominance(0.3, 0.6, 50, 100) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "vision", "text_tokens", "vision_tokens", "expected"),
    [
        (0.6, 0.0, 20, 100, math.inf),  # an image without attention
        (0.0, 0.3, 20, 100, 0.0),
        (0.6, 0.0, 20, 0, math.nan),  # no image
        (0.6, 0.3, 0, 100, math.nan),  # no text
        (0.0, 0.0, 20, 100, math.nan),  # no attention on either
        (math.nan, 0.3, 20, 100, math.nan),
    ],
)
def test_dominance_at_its_limits(text: float, vision: float, text_tokens: int, vision_tokens: int, expected: float):
    found = dominance(text, vision, text_tokens, vision_tokens)
    assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_efficiency_is_the_share_of_attention_over_the_share_of_tokens():
    text, vision = torch.tensor([0.6]), torch.tensor([0.3])
    # Text: (.6 / .9) / (20 / 120) = 4. Image: (.3 / .9) / (100 / 120) = .4.
    assert attention_efficiency(text, vision, torch.tensor([20]), torch.tensor([100])).item() == pytest.approx(4.0)
    assert attention_efficiency(vision, text, torch.tensor([100]), torch.tensor([20])).item() == pytest.approx(0.4)


def test_undefined_efficiency_is_nan():
    some, none = torch.tensor([0.5]), torch.tensor([0.0])
    assert torch.isnan(attention_efficiency(none, some, torch.tensor([0]), torch.tensor([7]))).all()
    assert torch.isnan(attention_efficiency(none, none, torch.tensor([5]), torch.tensor([7]))).all()
    assert attention_efficiency(some, none, torch.tensor([5]), torch.tensor([0])).tolist() == [1.0]


def test_a_published_log_line():
    """JuncyLu/trl_DAPO logs an MDI of 10.787455 beside these two efficiencies, whose quotient it must be."""
    assert pytest.approx(10.787455, abs=5e-5) == 2.691132 / 0.249469


@given(MASSES, MASSES, COUNTS, COUNTS, st.floats(1e-2, 1e2))
def test_identities_of_dominance_and_efficiency(
    text: list[float], vision: list[float], t: list[int], o: list[int], scale: float
):
    text_mass, vision_mass = torch.tensor(text, dtype=torch.float64), torch.tensor(vision, dtype=torch.float64)
    text_tokens, vision_tokens = torch.tensor(t), torch.tensor(o)
    mdi = modality_dominance(text_mass, vision_mass, text_tokens, vision_tokens)
    aei_text = attention_efficiency(text_mass, vision_mass, text_tokens, vision_tokens)
    aei_vision = attention_efficiency(vision_mass, text_mass, vision_tokens, text_tokens)
    share = text_tokens.double() / (text_tokens + vision_tokens)
    torch.testing.assert_close(mdi, aei_text / aei_vision)
    torch.testing.assert_close(share * aei_text + (1 - share) * aei_vision, torch.ones(3, dtype=torch.float64))
    assert bool((aei_text <= mdi.clamp(min=1.0) + 1e-9).all())
    torch.testing.assert_close(
        modality_dominance(scale * text_mass, scale * vision_mass, text_tokens, vision_tokens), mdi
    )


def test_counts_per_completion_broadcast_to_masses_per_token():
    text, vision = torch.full((2, 3), 0.5), torch.full((2, 3), 0.25)
    found = modality_dominance(text, vision, torch.tensor([[4], [8]]), torch.tensor([[4], [4]]))
    assert found.tolist() == [[2.0] * 3, [1.0] * 3]


def test_counts_may_be_plain_numbers():
    text_mass, vision_mass = torch.tensor([0.6, 0.2]), torch.tensor([0.3, 0.4])
    plain = modality_dominance(text_mass, vision_mass, 2, 4)
    assert plain.tolist() == pytest.approx([4.0, 1.0])
    assert torch.isnan(modality_dominance(text_mass, vision_mass, 2, 0)).all()
    assert attention_efficiency(text_mass, vision_mass, 2, 4).tolist() == pytest.approx([2.0, 1.0])


def test_perception_of_a_log_ratio():
    x = torch.tensor([[0.0, LN2, -LN2, 3.0, 50.0], [-50.0, -20.0, NAN, 0.1, 0.0]])
    original = torch.tensor([[-1.0, -2.0, -0.5, -4.0, -60.0], [-1.0, -1.0, -1.0, -1.0, -0.25]])
    # e^x - x - 1: 0; 2 - .6931 - 1; .5 + .6931 - 1; capped at 10 for 3 (16.09) and 50; x held at -20: 19, capped.
    expected = [[0.0, 0.306853, 0.193147, 10.0, 10.0], [10.0, 10.0, NAN, 0.005171, 0.0]]
    torch.testing.assert_close(
        perception(original, original + x), torch.tensor(expected), equal_nan=True, atol=2e-6, rtol=0
    )


def test_perception_estimates_the_divergence_from_the_sampled_tokens():
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    # Weighted with p, the probability of being sampled: sum p ln(p / q).
    estimate = (p * perception(p.log()[None], q.log()[None])[0]).sum()
    assert estimate.item() == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-6)


def test_mean_perception_is_over_measured_tokens():
    values = torch.tensor([[1.0, NAN, 3.0, NAN, 2.0, 99.0], [NAN, NAN, 99.0, 99.0, 99.0, 99.0], [99.0] * 6])
    found = mean_perception(values, MASK)
    assert found[0].item() == 2.0
    assert torch.isnan(found[1:]).all()


def logs(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([list(rows)]).log()


def test_distributions_worked_by_hand():
    p, q = logs(HALF, QUARTERS, [1.0, 0.0, 0.0]), logs(QUARTERS, HALF, [0.5, 0.0, 0.5])

    assert token_logps(p, torch.tensor([[1, 0, 0]])).tolist() == [pytest.approx([-LN2, -2 * LN2, 0.0])]
    # H(1/4, 3/4) = 1/4 ln 4 + 3/4 ln 4/3 = 2 ln 2 - 3/4 ln 3
    assert entropy(p).tolist() == [pytest.approx([LN2, 2 * LN2 - 0.75 * LN3, 0.0])]
    # 1/2 ln 2 + 1/2 ln 2/3; 1/4 ln 1/2 + 3/4 ln 3/2; ln 2
    assert kl(p, q).tolist() == [pytest.approx([LN2 - LN3 / 2, 0.75 * LN3 - LN2, LN2], abs=1e-6)]
    # The last: m = (3/4, 0, 1/4): (ln 4/3 + 1/2 ln 2/3 + 1/2 ln 2) / 2
    last = (math.log(4 / 3) + math.log(2 / 3) / 2 + LN2 / 2) / 2
    assert js(p, q)[0, 2].item() == pytest.approx(last, abs=1e-6)


def test_disjoint_distributions_have_infinite_kl_and_js_of_ln_2():
    p, q = logs([1.0, 0.0, 0.0]), logs([0.0, 0.5, 0.5])

    assert kl(p, q).item() == math.inf
    assert js(p, q).item() == pytest.approx(LN2)


@given(st.lists(st.lists(st.floats(-20, 20), min_size=4, max_size=4), min_size=2, max_size=2))
def test_divergences_are_not_negative_and_js_is_symmetric_and_bounded(logits: list[list[float]]):
    p, q = (torch.tensor([[row]]).log_softmax(dim=2) for row in logits)

    assert kl(p, q).item() >= -1e-5
    assert kl(p, p).item() == 0
    assert -1e-6 <= js(p, q).item() <= LN2 + 1e-6
    assert js(p, q).item() == pytest.approx(js(q, p).item(), abs=1e-6)
