import pytest
import torch

from tests.credit.make import MASK, signals


def test_a_signal_is_found_by_its_name():
    draws = torch.rand(MASK.shape)
    entropy = torch.rand(MASK.shape)
    given = signals(draws_BT=draws, entropy_BT=entropy)
    assert given.named("draws") is draws
    assert given.named("entropy") is entropy


@pytest.mark.parametrize("name", ["entropy", "perception", "dominance", "draws"])
def test_a_signal_that_was_not_measured_is_named(name: str):
    with pytest.raises(ValueError, match=f"'{name}', got None"):
        signals().named(name)
