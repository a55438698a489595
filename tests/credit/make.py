"""Signals for the tests: B=3 completions of 5, 2 and 0 tokens, T=6."""

from typing import Any

import torch
from hypothesis import strategies as st

from rlassay.credit import TokenSignals

NAN = float("nan")
MASK = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])


def signals(mask: torch.Tensor = MASK, **given: Any) -> TokenSignals:
    """Signals on `mask`; by default all completions have an image and an advantage of 1."""
    batch = len(mask)
    defaults = {"advantages_B": torch.ones(batch), "has_image_B": torch.ones(batch, dtype=torch.bool)}
    return TokenSignals(completion_mask=mask, **defaults | given)


@st.composite
def batches(draw: st.DrawFn) -> TokenSignals:
    """Every signal of up to four completions of up to seven tokens; some are NaN, equal, or without an image."""
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=4))
    time = max([*lengths, 1]) + draw(st.integers(0, 2))
    seed = draw(st.integers(0, 2**31 - 1))
    levels = draw(st.sampled_from([1, 3, 1000]))  # few levels make ties
    lost = draw(st.sampled_from([0.0, 0.3, 1.0]))
    generator = torch.Generator().manual_seed(seed)

    def signal(scale: float) -> torch.Tensor:
        values = torch.randint(0, levels, (len(lengths), time), generator=generator) / levels * scale
        return torch.where(torch.rand(values.shape, generator=generator) < lost, NAN, values)

    return TokenSignals(
        completion_mask=(torch.arange(time)[None] < torch.tensor(lengths)[:, None]).int(),
        advantages_B=torch.randn(len(lengths), generator=generator),
        has_image_B=torch.rand(len(lengths), generator=generator) < 0.7,
        entropy_BT=signal(4.0),
        logps_BT=-signal(3.0),
        perception_BT=signal(10.0),
        dominance_BT=signal(50.0),
        draws_BT=torch.rand((len(lengths), time), generator=generator),
    )
