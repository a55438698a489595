"""Tokens whose log-probability and advantage covary most are left out, or penalised."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from rlassay.credit import CREDITS, TokenSignals, compose, covariance_filter, covariance_penalty
from rlassay.credit.formulas import token_covariance
from tests.credit.make import batches, signals

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
LOGPS = torch.tensor([[-1.0, -3.0, -2.0, 9.0], [0.0, -4.0, 9.0, 9.0]])
ADVANTAGES = torch.tensor([1.0, -1.5])
# Mean log p: -10 / 5 = -2. Mean advantage over tokens: (3 * 1 - 2 * 1.5) / 5 = 0.
COVARIANCE = [[1.0, -1.0, 0.0, 0.0], [-3.0, 3.0, 0.0, 0.0]]


def test_covariance_by_hand():
    assert token_covariance(LOGPS, ADVANTAGES, MASK.bool()).tolist() == COVARIANCE
    # Another constant changes nothing: both are centred, over tokens, not completions.
    shifted = token_covariance(LOGPS + 7, ADVANTAGES - 2, MASK.bool())
    torch.testing.assert_close(shifted, torch.tensor(COVARIANCE))


@given(batches())
def test_the_mean_is_numpys_covariance(batch: TokenSignals):
    logps = batch.named("logps")
    valid = batch.completion_mask.bool() & ~torch.isnan(logps)
    if valid.sum() < 2:
        return
    pair = np.stack([logps[valid].numpy(), batch.advantages_B[:, None].expand_as(logps)[valid].numpy()])
    found = token_covariance(logps, batch.advantages_B, valid)
    assert found.sum().item() / valid.sum().item() == pytest.approx(np.cov(pair, ddof=0)[0, 1], abs=1e-5)


def kept(**options: Any) -> list[list[int]]:
    draws = torch.tensor([[0.25, 0.5, 0.75, 0.1], [0.125, 0.3, 0.2, 0.2]])
    batch = signals(MASK, logps_BT=LOGPS, advantages_B=ADVANTAGES, draws_BT=draws)
    return covariance_filter(batch, **options).int().tolist()


def test_the_largest_covariances_are_left_out():
    assert kept(fraction=0.2, choice="largest") == [[1, 1, 1, 1], [1, 0, 1, 1]]
    assert kept(fraction=0.4, choice="largest") == [[0, 1, 1, 1], [1, 0, 1, 1]]
    assert kept(fraction=0.001, choice="largest") == kept(fraction=0.2, choice="largest")  # one at least


def test_random_ones_lie_strictly_between_the_bounds():
    assert kept(fraction=0.4, bounds=(1.0, 5.0)) == [[1, 1, 1, 1], [1, 0, 1, 1]]  # 1 is excluded
    assert kept(fraction=0.4, bounds=(0.5, 3.0)) == [[0, 1, 1, 1], [1, 1, 1, 1]]  # 3 is excluded
    assert kept(fraction=0.4, bounds=(6.0, 9.0)) == [[1] * 4] * 2


def test_random_choices_do_not_follow_the_order_of_the_shuffle():
    draws = torch.rand((2, 4000), generator=torch.Generator().manual_seed(0))
    batch = signals(
        torch.ones(2, 4000, dtype=torch.int64),
        logps_BT=torch.linspace(-1, 1, 4000)[None].repeat(2, 1),
        advantages_B=torch.tensor([1.0, -1.0]),
        draws_BT=draws,
    )
    left_out = covariance_filter(batch, fraction=0.1, bounds=(0.0, 5.0)).logical_not()
    assert left_out.sum() == 800
    # Uniform draws have mean 1/2 and deviation 1/sqrt(12): four standard errors of 800 are .04.
    assert draws[left_out].mean().item() == pytest.approx(0.5, abs=0.04)


def test_the_left_out_tokens_have_no_credit_and_the_control_leaves_out_as_many():
    draws = torch.rand(MASK.shape, generator=torch.Generator().manual_seed(1))
    batch = signals(MASK, logps_BT=LOGPS, advantages_B=ADVANTAGES, draws_BT=draws)
    part = partial(CREDITS["covariance_filter"], fraction=0.4, choice="largest")
    assert compose([part], batch).weights_BT.tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]
    assert compose([part, CREDITS["shuffled_weights"]], batch).weights_BT.sum(dim=1).tolist() == [2, 1]


@pytest.mark.parametrize("options", [{"fraction": 0.0}, {"bounds": (2.0, 2.0)}])
def test_options_out_of_range_are_errors(options: dict[str, Any]):
    with pytest.raises(ValueError, match="expected a fraction"):
        kept(**options)


def penalties(*parts: Any) -> tuple[list[list[float]], list[list[float]]]:
    """The penalties of some parts together, and the weights of the advantages."""
    draws = torch.rand(MASK.shape, generator=torch.Generator().manual_seed(1))
    batch = signals(MASK, logps_BT=LOGPS, advantages_B=ADVANTAGES, draws_BT=draws)
    credit = compose(parts, batch)
    assert credit.old_policy_penalty_BT is not None
    return credit.old_policy_penalty_BT.tolist(), credit.weights_BT.tolist()


def test_the_tokens_that_covary_most_are_penalised_and_keep_their_credit():
    one, both = (partial(covariance_penalty, fraction=fraction, coef=0.5) for fraction in (0.2, 0.4))
    assert penalties(one) == ([[0, 0, 0, 0], [0, 0.5, 0, 0]], MASK.tolist())
    assert penalties(both) == ([[0.5, 0, 0, 0], [0, 0.5, 0, 0]], MASK.tolist())
    # A filter leaves out the very tokens; their penalty stays.
    filtered = partial(covariance_filter, fraction=0.4, choice="largest")
    assert penalties(filtered, both) == ([[0.5, 0, 0, 0], [0, 0.5, 0, 0]], [[0, 1, 1, 0], [1, 0, 0, 0]])


def test_its_control_penalises_as_many_tokens_of_each_completion():
    part = partial(covariance_penalty, fraction=0.4, coef=0.5)
    shuffled, weights = penalties(part, CREDITS["shuffled_weights"])
    assert [sum(row) for row in shuffled] == [0.5, 0.5]
    assert shuffled != penalties(part)[0]
    assert weights == MASK.tolist()


def test_the_share_of_penalised_tokens_is_logged():
    batch = signals(MASK, logps_BT=LOGPS, advantages_B=ADVANTAGES)
    credit = compose([partial(covariance_penalty, fraction=0.4)], batch)
    assert credit.metrics["penalised_token_fraction"] == pytest.approx(2 / 5)
    assert compose([CREDITS["uniform"]], batch).old_policy_penalty_BT is None


@given(batches())
def test_what_is_penalised_is_what_the_filter_of_the_largest_leaves_out(batch: TokenSignals):
    valid = batch.completion_mask.bool() & ~torch.isnan(batch.named("logps"))
    penalised = covariance_penalty(batch, fraction=0.3).weights_BT > 0
    kept = covariance_filter(batch, fraction=0.3, choice="largest")
    assert torch.equal(penalised, valid & ~kept)


@pytest.mark.parametrize(
    ("options", "message"), [({"fraction": 1.5}, "expected a fraction"), ({"coef": -1.0}, "coef: got -1.0")]
)
def test_a_penalty_out_of_range_is_an_error(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        covariance_penalty(signals(MASK, logps_BT=LOGPS), **options)
