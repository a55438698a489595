"""Rewards of one's own: each takes one completion as a dict, or with `batch: true` a group of them."""


def brevity(item: dict) -> float:
    """1 for an empty completion, falling to 0 at 40 tokens."""
    return max(0.0, 1 - item["response_length"] / 40)


def shortest(group: list[dict]) -> list[float]:
    """1 for the shortest completions of a prompt's group, 0 for the others; for `batch: true`."""
    lengths = [item["response_length"] for item in group]
    return [float(length == min(lengths)) for length in lengths]
