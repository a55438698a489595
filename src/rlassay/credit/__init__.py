"""Token credit: how an advantage is spread over the tokens of its completion. Pure functions of tensors."""

from rlassay.credit.uniform import spread, uniform

CREDITS = {"uniform": uniform}

__all__ = ["CREDITS", "spread", "uniform"]
