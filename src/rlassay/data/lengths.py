"""Overlong prompts, told by the tokens of a model's own processor."""

from collections.abc import Sequence

from PIL.Image import Image

from rlassay.config import StudyError
from rlassay.config.data import PromptLimit
from rlassay.data.intake import Refusal
from rlassay.records import PromptRow


def length_check(limit: PromptLimit | None) -> Refusal:
    """Refuses a prompt of more than `limit.tokens` tokens, those that stand for its images included.

    Errors: StudyError if the processor cannot be loaded, or cannot take a prompt, such as one with images or clips.
    """
    if limit is None:
        return lambda row, pictures: None
    from rlassay.models.hub import load_processor  # seconds to import
    from rlassay.models.prompt_length import count_tokens

    try:
        processor = load_processor(limit.model, revision=limit.revision, trust_remote_code=limit.trust_remote_code)
    except ValueError as error:
        raise StudyError([f"data.max_prompt_length.model: {error}"]) from error

    def too_long(row: PromptRow, pictures: Sequence[Image]) -> str | None:
        try:
            tokens = count_tokens(row, pictures, processor)
        except ValueError as error:
            raise StudyError([f"data.max_prompt_length: {error}"]) from error
        return f"prompt: more than {limit.tokens} tokens" if tokens > limit.tokens else None

    return too_long
