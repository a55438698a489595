import math
from inspect import unwrap

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div

from rlassay.divergence import PENALTIES, AdaptiveBeta, BetaController, FixedBeta, exact_kl, penalty

POLICY = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05], dtype=torch.float64)
REFERENCE = torch.tensor([0.3, 0.3, 0.2, 0.12, 0.08], dtype=torch.float64)
KL = float((POLICY * (POLICY / REFERENCE).log()).sum())


def of_log_ratio(kind: str, *log_ratios: float) -> list[float]:
    """Penalties of one row of tokens, whose reference has log-probability -1."""
    values = torch.tensor([log_ratios], dtype=torch.float64)
    return penalty(values - 1, torch.full_like(values, -1.0), kind)[0].tolist()


def expected_gradient(kind: str, logits: Tensor) -> Tensor:
    """Gradient of the penalty with respect to the logits, in expectation over the policy's tokens."""
    logps = logits.log_softmax(dim=0)
    values = penalty(logps[None], REFERENCE.log()[None], kind)[0]
    return torch.autograd.grad((logps.detach().exp() * values).sum(), logits)[0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("kl", [0.0, math.log(2), -math.log(2), 30.0, -30.0]),
        ("abs", [0.0, math.log(2), math.log(2), 30.0, 30.0]),
        ("mse", [0.0, math.log(2) ** 2 / 2, math.log(2) ** 2 / 2, 450.0, 450.0]),
        # 1/2 + ln 2 - 1 and 2 - ln 2 - 1; e^-20 + 20 - 1 = 19 and e^20 - 20 - 1 are cut off at 10.
        ("low_var_kl", [0.0, math.log(2) - 0.5, 1 - math.log(2), 10.0, 10.0]),
    ],
)
def test_penalties_by_hand(kind: str, expected: list[float]):
    assert of_log_ratio(kind, 0.0, math.log(2), -math.log(2), 30.0, -30.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", PENALTIES)
def test_penalties_equal_independent_formulas(kind: str):
    random = np.random.default_rng(0)
    policy, reference = -random.exponential(2, (3, 50)), -random.exponential(2, (3, 50))
    delta = policy - reference
    formulas = {
        "kl": delta,
        "abs": np.abs(delta),
        "mse": 0.5 * delta**2,
        "low_var_kl": np.clip(np.exp(np.clip(-delta, -20, 20)) + delta - 1, -10, 10),
    }
    values = penalty(torch.from_numpy(policy), torch.from_numpy(reference), kind)
    np.testing.assert_allclose(values.numpy(), formulas[kind], rtol=1e-12, atol=1e-12)


def test_low_var_kl_keeps_its_digits_where_the_policies_are_close():
    # e^-d + d - 1 = d^2 / 2 - d^3 / 6; in float32 the sum as written gives 0 here.
    value = penalty(torch.tensor([[1e-4]]), torch.tensor([[0.0]]), "low_var_kl")
    assert value.item() == pytest.approx(5e-9, rel=0.02)


@pytest.mark.parametrize("kind", PENALTIES)
def test_half_precision_is_computed_in_float32(kind: str):
    policy, reference = torch.tensor([[-1.0, -2.5]]).bfloat16(), torch.tensor([[-1.25, -2.0]]).bfloat16()
    values = penalty(policy, reference, kind)
    assert values.dtype == torch.float32
    assert torch.equal(values, penalty(policy.float(), reference.float(), kind))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("kl", [1.0, 1.0, 1.0, 1.0]),
        ("abs", [-1.0, 0.0, 1.0, 1.0]),
        ("mse", [-1.0, 0.0, 1.0, 30.0]),
        # 1 - e^-d; 0 beyond the clamp.
        ("low_var_kl", [1 - math.e, 0.0, 1 - 1 / math.e, 0.0]),
    ],
)
def test_gradients_of_the_policy_by_hand(kind: str, expected: list[float]):
    logps = torch.tensor([[-2.0, -1.0, 0.0, 29.0]], dtype=torch.float64, requires_grad=True)
    values = penalty(logps, torch.full((1, 4), -1.0, dtype=torch.float64), kind)
    gradient = torch.autograd.grad(values.sum(), logps)[0]
    assert gradient[0].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", PENALTIES)
def test_gradients_equal_finite_differences(kind: str):
    generator = torch.Generator().manual_seed(0)
    logps, reference = (-torch.rand(2, 2, 6, generator=generator, dtype=torch.float64)).unbind()
    assert torch.autograd.gradcheck(lambda values: penalty(values, reference, kind), logps.requires_grad_())


@pytest.mark.parametrize("kind", ["kl", "low_var_kl"])
def test_the_mean_over_samples_of_the_policy_approximates_the_exact_kl(kind: str):
    count = 20_000
    of_token = penalty(POLICY.log()[None], REFERENCE.log()[None], kind)[0]
    tokens = torch.multinomial(POLICY, count, replacement=True, generator=torch.Generator().manual_seed(0))
    # Unbiased, exactly; the mean of n samples errs by more than 4 standard errors with one seed in 15 000.
    assert float((POLICY * of_token).sum()) == pytest.approx(KL, abs=1e-12)
    variance = float((POLICY * (of_token - KL).square()).sum())
    assert float(of_token[tokens].mean()) == pytest.approx(KL, abs=4 * math.sqrt(variance / count))


def test_low_var_kl_varies_less_than_kl():
    kl, low = (penalty(POLICY.log()[None], REFERENCE.log()[None], kind)[0] for kind in ("kl", "low_var_kl"))
    kl_variance, low_variance = (float((POLICY * (values - KL).square()).sum()) for values in (kl, low))
    assert low_variance < kl_variance / 10


def test_the_expected_gradients_are_those_of_the_documented_divergences():
    logits = POLICY.log().clone().requires_grad_()
    logps = logits.log_softmax(dim=0)
    kl = torch.autograd.grad((logps.exp() * (logps - REFERENCE.log())).sum(), logits, retain_graph=True)[0]
    variation = torch.autograd.grad((logps.exp() - REFERENCE).abs().sum(), logits, retain_graph=True)[0]
    reversed_kl = torch.autograd.grad((REFERENCE * (REFERENCE.log() - logps)).sum(), logits)[0]
    torch.testing.assert_close(expected_gradient("kl", logits), torch.zeros_like(logits), rtol=0, atol=1e-12)
    torch.testing.assert_close(expected_gradient("abs", logits), variation)
    torch.testing.assert_close(expected_gradient("mse", logits), kl)
    torch.testing.assert_close(expected_gradient("low_var_kl", logits), reversed_kl)


def test_the_exact_kl_by_hand():
    # Uniform over two of three tokens against uniform over three: ln (1/2) - ln (1/3) = ln 1.5; a constant in the
    # logits changes nothing.
    logits = torch.tensor([[[7.0, 7.0, -math.inf], [0.0, 0.0, 0.0]]])
    reference = torch.tensor([[[0.0, 0.0, 0.0], [-3.0, -3.0, -3.0]]])
    assert exact_kl(logits, reference)[0].tolist() == pytest.approx([math.log(1.5), 0.0], abs=1e-6)
    assert exact_kl(reference, logits)[0].tolist() == [math.inf, pytest.approx(0.0, abs=1e-6)]


def test_the_exact_kl_equals_torch_and_numpy():
    logits, reference = torch.randn(2, 3, 4, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_p, log_q = logits.log_softmax(2), reference.log_softmax(2)
    values = exact_kl(logits, reference)
    torch.testing.assert_close(values, kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=2))
    p, q = (np.exp(x) / np.exp(x).sum(axis=2, keepdims=True) for x in (logits.numpy(), reference.numpy()))
    np.testing.assert_allclose(values.numpy(), (p * np.log(p / q)).sum(axis=2), rtol=1e-10)


def test_the_gradient_of_the_exact_kl_stays_finite_when_both_exclude_a_token():
    logits = torch.tensor([[[1.0, 0.0, -math.inf]]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[[0.0, 0.0, -math.inf]]], dtype=torch.float64)
    gradient = torch.autograd.grad(exact_kl(logits, reference).sum(), logits)[0][0, 0].tolist()
    # p (ln p - ln q - KL) of each token, with p = (e, 1) / (e + 1): +-p1 p2 times the difference of the log-ratios, 1.
    product = math.e / (math.e + 1) ** 2
    assert gradient == pytest.approx([product, -product, 0.0])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("low_var", "kind: got 'low_var', expected one of kl, abs, mse, low_var_kl; did you mean 'low_var_kl'?"),
        ("?", "kind: got '?', expected one of kl, abs, mse, low_var_kl"),
        ("full", "kind: got 'full', which needs the logits of the whole vocabulary; call exact_kl with them"),
    ],
)
def test_an_unknown_kind_lists_the_known_ones_with_the_nearest(kind: str, message: str):
    with pytest.raises(ValueError, match="kind: got") as error:
        penalty(torch.zeros(1, 2), torch.zeros(1, 2), kind)
    assert str(error.value) == message


def test_shapes_must_be_equal_even_if_they_broadcast():
    # Unwrapped: tests check shapes against the annotations first, which scripts do not.
    with pytest.raises(ValueError, match=r"ref_per_token_logps: got shape \(1, 3\), expected \(2, 3\)"):
        unwrap(penalty)(torch.zeros(2, 3), torch.zeros(1, 3), "kl")
    with pytest.raises(ValueError, match=r"ref_logits: got shape \(2, 1, 5\), expected \(2, 3, 5\)"):
        unwrap(exact_kl)(torch.zeros(2, 3, 5), torch.zeros(2, 1, 5))


def test_a_fixed_beta_stays():
    beta = FixedBeta(0.04)
    assert [beta.update(100.0, 64), beta.update(math.nan, 0), beta.beta] == [0.04, 0.04, 0.04]
    assert FixedBeta(0.0).update(1.0, 1) == 0.0


def test_an_adaptive_beta_by_hand_over_several_updates():
    beta = AdaptiveBeta(beta=0.1, target=2.0, horizon=1000.0)
    # Errors: 0; 0.1; 4 clipped to 0.2; -0.05; -1 and, for a negative estimate, -1.5 clipped to -0.2.
    assert beta.update(2.0, 100) == pytest.approx(0.1)
    assert beta.update(2.2, 100) == pytest.approx(0.101)
    assert beta.update(10.0, 100) == pytest.approx(0.101 * 1.02)
    assert beta.update(1.9, 200) == pytest.approx(0.101 * 1.02 * 0.99)
    assert beta.update(0.0, 500) == pytest.approx(0.101 * 1.02 * 0.99 * 0.9)
    assert beta.update(-1.0, 500) == pytest.approx(0.101 * 1.02 * 0.99 * 0.9 * 0.9)
    assert beta.beta == pytest.approx(0.101 * 1.02 * 0.99 * 0.9 * 0.9)


def test_a_target_per_sequence_shrinks_beta_under_a_kl_per_token():
    # 1 - 0.2 x 256 / 10 000.
    assert AdaptiveBeta(0.01, target=6.0, horizon=1e4).update(0.02, 256) == pytest.approx(0.01 * 0.99488, rel=1e-12)


def test_a_resumed_controller_equals_one_that_never_stopped():
    measured = np.random.default_rng(0).exponential(0.1, 20).tolist()
    whole, first, resumed = (AdaptiveBeta(0.02, target=0.1, horizon=500.0) for _ in range(3))
    betas = [whole.update(kl, 64) for kl in measured]
    for kl in measured[:9]:
        first.update(kl, 64)
    resumed.load_state_dict(first.state_dict())
    assert first.state_dict() == {"beta": betas[8]}
    assert [resumed.update(kl, 64) for kl in measured[9:]] == betas[9:]


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_beta_must_be_finite_and_not_negative(value: float):
    controllers: list[BetaController] = [FixedBeta(0.1), AdaptiveBeta(0.1, 1.0, 10.0)]
    for controller in controllers:
        with pytest.raises(ValueError, match=f"beta: got {value}, expected a finite number of at least 0"):
            controller.load_state_dict({"beta": value})
        assert controller.beta == 0.1
    with pytest.raises(ValueError, match=f"beta: got {value}, expected a finite number of at least 0"):
        FixedBeta(value)


@pytest.mark.parametrize("name", ["beta", "target", "horizon"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_the_settings_of_an_adaptive_beta_must_be_above_0(name: str, value: float):
    settings = {"beta": 0.1, "target": 1.0, "horizon": 10.0} | {name: value}
    with pytest.raises(ValueError, match=f"{name}: got {value}, expected a finite number above 0"):
        AdaptiveBeta(**settings)


@pytest.mark.parametrize(
    ("current_kl", "num_samples", "message"),
    [
        (math.nan, 4, "current_kl: got nan, expected a finite number"),
        (math.inf, 4, "current_kl: got inf, expected a finite number"),
        (1.0, 0, "num_samples: got 0, expected at least 1 and below 50"),
        (1.0, 50, "num_samples: got 50, expected at least 1 and below 50, 5 times the horizon"),
    ],
)
def test_an_update_that_cannot_be_made_leaves_beta_alone(current_kl: float, num_samples: int, message: str):
    beta = AdaptiveBeta(0.1, target=1.0, horizon=10.0)
    with pytest.raises(ValueError, match=message):
        beta.update(current_kl, num_samples)
    assert beta.beta == 0.1


def test_one_completion_and_whole_numbers_are_taken():
    assert penalty(torch.tensor([0.0, -1.0]), torch.tensor([-2.0, -1.0]), "mse").tolist() == [2.0, 0.0]
    assert FixedBeta(0).update(0, 4) == 0.0
    # The error is -1, clipped to -.2: 1 - .2 * 50 / 100.
    assert AdaptiveBeta(beta=1, target=6, horizon=100).update(0, 50) == pytest.approx(0.9)
