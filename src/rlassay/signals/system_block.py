"""Where a prompt's system block ends, whatever the model's chat template looks like."""

from typing import Any

from jaxtyping import Int
from torch import Tensor

from rlassay.models import tokenizer_of

_SAID = "qxzSAIDzxq"


def system_length(processor: Any, prompt: list[dict[str, Any]], prompt_ids: Int[Tensor, "positions"]) -> int:
    """Tokens of the system block at the beginning of a prompt, also of one that the template adds by itself.

    The template renders the system turn, if there is one, before a user, an assistant and a user turn that all say
    the same. What comes before the first user turn's words is the system block and a header; what comes before the
    second one's ends in that same header. The block is what is left of the first without the header.

    Args:
        processor: a processor or a tokenizer with a chat template.
        prompt: the conversation.
        prompt_ids: its tokens, without padding.

    Errors: ValueError if the template does not say the words of each turn once.
    """
    said: Any = _SAID if isinstance(prompt[-1]["content"], str) else [{"type": "text", "text": _SAID}]
    system = [turn for turn in prompt[:1] if turn["role"] == "system"]
    turns = [{"role": role, "content": said} for role in ("user", "assistant", "user")]
    text = processor.apply_chat_template([*system, *turns], tokenize=False)
    parts = text.split(_SAID)
    if len(parts) != len(turns) + 1:
        raise ValueError(f"chat template: expected the words of {len(turns)} turns, got {len(parts) - 1}: {text!r}")
    first, second = (
        tokenizer_of(processor)(part, add_special_tokens=False)["input_ids"] for part in (parts[0], parts[2])
    )
    block = first[: len(first) - _common(first[::-1], second[::-1])]
    return _common(block, prompt_ids.tolist())


def _common(one: list[int], other: list[int]) -> int:
    """Length of the common beginning."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
