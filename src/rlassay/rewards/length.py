"""Rewards for the length of a completion."""

from collections.abc import Sequence

from rlassay.records import Completion


def soft_overlong(completions: Sequence[Completion], *, max_completion_length: int, cache: int) -> list[float | None]:
    """A penalty that grows from 0 to -1 over the last `cache` tokens before the limit.

    With length |y|, limit L = max_completion_length and C = cache:
    0 if |y| <= L - C;  ((L - C) - |y|) / C if |y| <= L;  -1 beyond. C = 0 leaves 0 up to L and -1 beyond.

    Args:
        completions: one prompt's group.
        max_completion_length: L, tokens.
        cache: C, tokens; 0 <= C <= L.

    Raises:
        ValueError: an option is out of range.

    Source: DAPO (arXiv:2503.14476) equation 13; C = 0, which it leaves undefined, is the limit C -> 0.
    """
    if max_completion_length < 1:
        raise ValueError(f"max_completion_length: got {max_completion_length}; expected at least 1 token")
    if not 0 <= cache <= max_completion_length:
        raise ValueError(f"cache: got {cache}; expected 0 to max_completion_length ({max_completion_length}) tokens")
    return [_overlong_penalty(completion.token_count, max_completion_length, cache) for completion in completions]


def _overlong_penalty(length: int, limit: int, cache: int) -> float:
    free = limit - cache
    if length <= free:
        return 0.0
    return (free - length) / cache if length <= limit else -1.0
