"""All rewards of one prompt's group at once."""

from collections.abc import Mapping, Sequence

from rlassay.records import Completion
from rlassay.rewards.lift import Reward


def score_with(
    names_and_options: Mapping[str, Mapping[str, object]],
    completions: Sequence[Completion],
    rewards: Mapping[str, Reward],
) -> dict[str, list[float | None]]:
    """One value per completion and reward.

    Raises:
        ValueError: an unknown reward, or one that gives another number of values; both are named.
    """
    scores: dict[str, list[float | None]] = {}
    for name, options in names_and_options.items():
        if name not in rewards:
            raise ValueError(f"unknown reward {name!r}; known: {', '.join(sorted(rewards))}")
        values = rewards[name](completions, **options)
        if len(values) != len(completions):
            raise ValueError(f"reward {name}: got {len(values)} values for {len(completions)} completions")
        scores[name] = values
    return scores
