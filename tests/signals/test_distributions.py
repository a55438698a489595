import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlassay.signals.distributions import entropy, js, kl, token_logps

HALF, QUARTERS = [0.5, 0.5, 0.0], [0.25, 0.75, 0.0]
LN2, LN3 = math.log(2), math.log(3)


def logs(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([list(rows)]).log()


def test_values_worked_by_hand():
    p, q = logs(HALF, QUARTERS, [1.0, 0.0, 0.0]), logs(QUARTERS, HALF, [0.5, 0.0, 0.5])

    assert token_logps(p, torch.tensor([[1, 0, 0]])).tolist() == [pytest.approx([-LN2, -2 * LN2, 0.0])]
    # H(1/4, 3/4) = 1/4 ln 4 + 3/4 ln 4/3 = 2 ln 2 - 3/4 ln 3
    assert entropy(p).tolist() == [pytest.approx([LN2, 2 * LN2 - 0.75 * LN3, 0.0])]
    # 1/2 ln 2 + 1/2 ln 2/3; 1/4 ln 1/2 + 3/4 ln 3/2; ln 2
    assert kl(p, q).tolist() == [pytest.approx([LN2 - LN3 / 2, 0.75 * LN3 - LN2, LN2], abs=1e-6)]
    # The last: m = (3/4, 0, 1/4): (ln 4/3 + 1/2 ln 2/3 + 1/2 ln 2) / 2
    last = (math.log(4 / 3) + math.log(2 / 3) / 2 + LN2 / 2) / 2
    assert js(p, q)[0, 2].item() == pytest.approx(last, abs=1e-6)


def test_what_the_second_distribution_excludes_is_infinitely_far_for_kl_and_ln_2_at_most_for_js():
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
