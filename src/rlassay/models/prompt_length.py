"""How many tokens a prompt takes, counted as the model's own processor does."""

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image
from transformers import ProcessorMixin

from rlassay.models.hub import Processor
from rlassay.models.policy import chat
from rlassay.records import PromptRow


def count_tokens(row: PromptRow, images: Sequence[Image], processor: Processor) -> int:
    """Tokens from the start of the conversation to where the completion begins, every image at its expanded length.

    The conversation begins with the system turn that states the completion format: no model is shown a longer one.

    Args:
        row: the prompt; its `media` say where images stand.
        images: the row's images.
        processor: a processor, or the tokenizer of a model that reads text only.

    Errors: ValueError for a processor without a chat template, for images that it cannot see, and for clips.
    """
    sees_images = isinstance(processor, ProcessorMixin)
    if not processor.chat_template:
        raise ValueError("the processor has no chat template; choose an instruction-tuned model")
    if any(item.kind == "video" for item in row.media):
        raise ValueError("the tokens of a clip cannot be counted; leave the limit out, or the rows with clips")
    if images and not sees_images:
        raise ValueError("a row shows images, but the model reads text only; choose an image-text-to-text model")
    conversation = chat(row, processor, with_format_instruction=True)
    text: Any = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    # The template has already written the begin-of-sequence token where there is one.
    options: dict[str, Any] = {"add_special_tokens": False}
    if sees_images:
        options["images"] = [list(images)] if images else None
    return len(processor(text=[text], **options)["input_ids"][0])
