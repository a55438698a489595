"""The weight of a reward as a function of training progress."""

from collections.abc import Sequence

Phase = tuple[float, float]
"""The progress at which a phase starts, and its weight; progress is steps done over all steps, 0 to 1."""
EARLY_SHARE = 0.1
"""Share of the steps in the early phase of a run without warm-up."""


def early_steps(max_steps: int, warmup_steps: int) -> int:
    """Steps of the early phase: the warm-up, or int(0.1 max_steps) without one.

    Source: JuncyLu/trl_DAPO, branch main, where the warm-up is a share of the steps.
    """
    return warmup_steps or int(max_steps * EARLY_SHARE)


def weight_phases(
    weight: float, early_weight: float | None, schedule: Sequence[Phase], early_share: float
) -> tuple[Phase, ...]:
    """The phases of a reward's weight in their order; the first starts at progress 0.

    Args:
        weight: the weight after the early phase, or until the schedule begins.
        early_weight: the weight in the early phase; None for no such phase.
        schedule: phases after the beginning.
        early_share: the progress at which the early phase ends.
    """
    if early_weight is not None:
        return ((0.0, early_weight), (early_share, weight))
    return ((0.0, weight), *schedule)


def weight_at(phases: Sequence[Phase], progress: float) -> float:
    """The weight of the last phase that has started (largest start <= progress)."""
    return [weight for start, weight in phases if start <= progress][-1]
