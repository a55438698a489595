import math

import pytest
import torch

from rlassay.signals import mass
from rlassay.signals.mass import Scoring, segment_mass

NOTHING_HIDDEN = torch.ones(1, 1, 1, 3, dtype=torch.bool)


def one_row(mask: torch.Tensor = NOTHING_HIDDEN, **scoring: float | torch.Tensor) -> list[float]:
    # Scores q k = ln 4, ln 2, ln 2: softmax 1/2, 1/4, 1/4. Segments: the first key, and the two others.
    query = torch.ones(1, 1, 1, 1)
    key = torch.tensor([4.0, 2.0, 2.0]).log().view(1, 1, 3, 1)
    indicator = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
    return segment_mass(query, key, mask, indicator, Scoring(**{"scaling": 1.0, **scoring})).flatten().tolist()


def test_mass_is_the_softmax_over_keys_summed_within_each_segment():
    assert one_row() == pytest.approx([0.5, 0.5])


def test_a_hidden_key_gets_nothing_whether_by_a_truth_value_or_by_a_huge_negative_score():
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


def test_heads_that_share_keys_are_averaged_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    random = torch.Generator().manual_seed(0)
    batch, heads, kv_heads, rows, keys, width = 3, 4, 2, 5, 7, 6
    query = torch.randn(batch, heads, rows, width, generator=random)
    key = torch.randn(batch, kv_heads, keys, width, generator=random)
    mask = torch.rand(batch, 1, rows, keys, generator=random) > 0.3
    mask[..., 0] = True
    indicator = torch.nn.functional.one_hot(torch.randint(0, 8, (batch, keys), generator=random), 8).float()
    arguments = (query, key, mask, indicator, Scoring(scaling=0.5))

    whole = segment_mass(*arguments)
    scores = 0.5 * query @ key.repeat_interleave(2, dim=1).transpose(2, 3)
    expected = scores.masked_fill(~mask, -math.inf).softmax(dim=-1).mean(dim=1) @ indicator
    assert torch.allclose(whole, expected, atol=1e-6)

    for size in (1, 2 * heads * keys, 2 * rows * heads * keys):  # one row; two rows; all rows of two samples
        monkeypatch.setattr(mass, "_SCORES_ON_CPU", size)
        assert torch.allclose(segment_mass(*arguments), whole, atol=1e-6)
