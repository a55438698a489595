"""Rewards of one's own: each takes one completion as a dict and returns a number."""


def brevity(item: dict) -> float:
    """1 for an empty completion, falling to 0 at 40 tokens."""
    return max(0.0, 1 - item["response_length"] / 40)
