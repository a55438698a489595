"""Rewards for the length of a completion."""

from collections.abc import Sequence

from rlassay.records import Completion
from rlassay.rewards.accuracy import choice_accuracy
from rlassay.rewards.rouge import count_words


def soft_overlong(completions: Sequence[Completion], *, max_completion_length: int, cache: int) -> list[float | None]:
    """A penalty growing from 0 to -1 over the last `cache` tokens before the limit.

    With length |y|, limit L = max_completion_length and C = cache:
    0 if |y| <= L - C;  ((L - C) - |y|) / C if |y| <= L;  -1 beyond. C = 0 gives 0 up to L and -1 beyond.

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


def length_similarity(completions: Sequence[Completion], *, scale: int | float = 1.0) -> list[float | None]:
    """Similarity in length of the completion and the row's answer, times `scale`.

    It is `scale * min(n, m) / max(n, m)` for n words of the completion and m words of the answer; 0 for m = 0. Blanks
    separate words; Chinese characters and kana count as one word each.

    Args:
        completions: one prompt's group.
        scale: the value at equal lengths, more than 0.

    Raises:
        ValueError: `scale` is not positive.

    Source: the length reward of LingjieBao1998/Unlimited-Learning, whose scale is 0.5.
    """
    if not scale > 0:
        raise ValueError(f"scale: got {scale}; expected more than 0")
    return [scale * _similarity(count_words(each.text), count_words(each.row.answer)) for each in completions]


def _similarity(length: int, reference: int) -> float:
    return min(length, reference) / max(length, reference) if reference else 0.0


def accuracy_conditioned_length(completions: Sequence[Completion], *, max_completion_length: int) -> list[float | None]:
    """1 for the right choice; 1 - 0.5 clip((|y| - L0) / (L1 - L0), 0, 1) for a wrong one, which penalises rambling.

    L0 = round(0.2 L) and L1 = round(0.5 L) tokens, L = max_completion_length. A row without choices gives 1.

    Args:
        completions: one prompt's group.
        max_completion_length: L, tokens.

    Raises:
        ValueError: L is less than 1.

    Source: the later length reward of JuncyLu/trl_DAPO, branch main. L0 = L1, which it leaves undefined, gives a step.
    """
    if max_completion_length < 1:
        raise ValueError(f"max_completion_length: got {max_completion_length}; expected at least 1 token")
    free, full = round(0.2 * max_completion_length), round(0.5 * max_completion_length)
    return [
        1 - 0.5 * _fraction(completion.token_count, free, full) if accuracy == 0 else 1.0
        for completion, accuracy in zip(completions, choice_accuracy(completions), strict=True)
    ]


def _fraction(length: int, start: int, end: int) -> float:
    """Position of a length between `start` (0) and `end` (1), clipped."""
    if length <= start or length >= end:
        return float(length > start)
    return (length - start) / (end - start)
