import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlassay.credit import attention_efficiency, modality_dominance

MASSES = st.lists(st.floats(1e-3, 10.0), min_size=3, max_size=3)
COUNTS = st.lists(st.integers(1, 500), min_size=3, max_size=3)


def dominance(text: float, vision: float, text_tokens: int, vision_tokens: int) -> float:
    masses = torch.tensor([text, vision], dtype=torch.float64)
    return modality_dominance(masses[0], masses[1], torch.tensor(text_tokens), torch.tensor(vision_tokens)).item()


def test_dominance_is_density_over_density():
    assert dominance(0.6, 0.3, 20, 100) == pytest.approx((0.6 / 20) / (0.3 / 100))  # 10
    assert dominance(0.3, 0.6, 50, 100) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "vision", "text_tokens", "vision_tokens", "expected"),
    [
        (0.6, 0.0, 20, 100, math.inf),  # nothing on the image that is there
        (0.0, 0.3, 20, 100, 0.0),
        (0.6, 0.0, 20, 0, math.nan),  # no image
        (0.6, 0.3, 0, 100, math.nan),  # no text
        (0.0, 0.0, 20, 100, math.nan),  # no attention on either
        (math.nan, 0.3, 20, 100, math.nan),
    ],
)
def test_what_dominance_is_where_it_cannot_be_measured(
    text: float, vision: float, text_tokens: int, vision_tokens: int, expected: float
):
    found = dominance(text, vision, text_tokens, vision_tokens)
    assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_efficiency_is_the_share_of_attention_over_the_share_of_tokens():
    text, vision = torch.tensor([0.6]), torch.tensor([0.3])
    # Text: (.6 / .9) / (20 / 120) = 4. Image: (.3 / .9) / (100 / 120) = .4.
    assert attention_efficiency(text, vision, torch.tensor([20]), torch.tensor([100])).item() == pytest.approx(4.0)
    assert attention_efficiency(vision, text, torch.tensor([100]), torch.tensor([20])).item() == pytest.approx(0.4)


def test_efficiency_that_cannot_be_measured_is_nan():
    some, none = torch.tensor([0.5]), torch.tensor([0.0])
    assert torch.isnan(attention_efficiency(none, some, torch.tensor([0]), torch.tensor([7]))).all()
    assert torch.isnan(attention_efficiency(none, none, torch.tensor([5]), torch.tensor([7]))).all()
    assert attention_efficiency(some, none, torch.tensor([5]), torch.tensor([0])).tolist() == [1.0]


def test_the_published_log_line():
    """JuncyLu/trl_DAPO logs an MDI of 10.787455 beside these two efficiencies, whose quotient it must be."""
    assert pytest.approx(10.787455, abs=5e-5) == 2.691132 / 0.249469


@given(MASSES, MASSES, COUNTS, COUNTS, st.floats(1e-2, 1e2))
def test_identities(text: list[float], vision: list[float], t: list[int], o: list[int], scale: float):
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


def test_counts_per_completion_serve_masses_per_token():
    text, vision = torch.full((2, 3), 0.5), torch.full((2, 3), 0.25)
    found = modality_dominance(text, vision, torch.tensor([[4], [8]]), torch.tensor([[4], [4]]))
    assert found.tolist() == [[2.0] * 3, [1.0] * 3]


def test_counts_may_be_plain_numbers():
    text_mass, vision_mass = torch.tensor([0.6, 0.2]), torch.tensor([0.3, 0.4])
    plain = modality_dominance(text_mass, vision_mass, 2, 4)
    assert plain.tolist() == pytest.approx([4.0, 1.0])
    assert torch.isnan(modality_dominance(text_mass, vision_mass, 2, 0)).all()
    assert attention_efficiency(text_mass, vision_mass, 2, 4).tolist() == pytest.approx([2.0, 1.0])
