"""Length of a prompt in tokens, counted by the model's own processor."""

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image
from transformers import ProcessorMixin

from rlassay.images import to_rgb
from rlassay.models.hub import Processor
from rlassay.models.policy import ChatFormat
from rlassay.models.seq2seq import reads_documents
from rlassay.records import PromptRow


def count_tokens(row: PromptRow, images: Sequence[Image], processor: Processor) -> int:
    """Tokens of the whole prompt, with each image, and each frame of a clip, at its expanded length.

    The prompt is counted with the system turn that states the completion format: no stage shows a longer one.

    Args:
        row: the prompt; its `media` state the positions of the images.
        images: the row's images, then the frames of its clips.
        processor: a processor, or the tokenizer of a model that reads text only.

    Errors: ValueError for a processor without a chat template, and for images if the model reads text only.
    """
    prepare: Any = processor
    reads_images = isinstance(processor, ProcessorMixin)
    if not prepare.chat_template:
        raise ValueError("the processor has no chat template; choose an instruction-tuned model")
    if images and not reads_images:
        raise ValueError("a row shows images, but the model reads text only; choose an image-text-to-text model")
    prompt = ChatFormat(processor=processor, with_format_instruction=not reads_documents(processor)).prompt(row)
    text = prepare.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    # The template has already written the begin-of-sequence token where there is one.
    options: dict[str, Any] = {"add_special_tokens": False}
    if reads_images:
        options["images"] = [[to_rgb(image) for image in images]] if images else None
    return len(prepare(text=[text], **options)["input_ids"][0])
