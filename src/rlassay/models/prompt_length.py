"""Length of a prompt in tokens, and the room that it leaves for completions.

The model's own processor counts the tokens.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image
from transformers import ProcessorMixin

from rlassay.config.explain import StudyError
from rlassay.images import BlankImages, Clip, to_rgb
from rlassay.models.hub import Processor
from rlassay.models.policy import ChatFormat, tokenizer_of
from rlassay.models.seq2seq import reads_documents
from rlassay.models.video_input import process_prompt
from rlassay.records import PromptRow


def count_tokens(row: PromptRow, images: Sequence[Image], processor: Processor) -> int:
    """Tokens of the whole prompt, with images and clip frames at their expanded length.

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
        raise ValueError("the row shows images, but the model reads text only; choose an image-text-to-text model")
    prompt = ChatFormat(processor=processor, with_format_instruction=not reads_documents(processor)).prompt(row)
    text = prepare.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    # The template has already written the begin-of-sequence token where there is one.
    options: dict[str, Any] = {"add_special_tokens": False}
    if reads_images:
        options["images"] = [[to_rgb(image) for image in images]] if images else None
    return len(prepare(text=[text], **options)["input_ids"][0])


def prompt_lengths(rows: Sequence[PromptRow], chat: ChatFormat, data: Path) -> list[int]:
    """Tokens of each prompt in a stage, with images and clips at expanded length.

    The tokens that images and clips add depend on their sizes and times alone, and are counted once for each by blank
    ones, so that no image is decoded.

    Args:
        rows: the prompts.
        chat: how the stage shows them.
        data: the study's data folder.
    """
    tokenizer: Any = tokenizer_of(chat.processor)
    texts = [chat.rendered(row) for row in rows]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    blanks, added = BlankImages(data), dict[Hashable, int]()
    lengths: list[int] = []
    for row, text, of_text in zip(rows, texts, ids, strict=True):
        media = [*blanks(chat.images(row)), *chat.video_clips(row, blanks)]
        shape = tuple(_shape(item) for item in media)
        if media and shape not in added:
            made, _ = process_prompt(chat.processor, text, media)
            added[shape] = len(made["input_ids"]) - len(of_text)
        lengths.append(len(of_text) + added.get(shape, 0))
    return lengths


def _shape(item: Image | Clip) -> Hashable:
    """What the number of tokens of an image or a clip depends on."""
    if isinstance(item, Clip):
        return item.frames[0].size, len(item.frames), item.times, item.duration, item.fps
    return item.size


def require_room(
    rows: Sequence[PromptRow], lengths: Sequence[int], limit: int, *, of: str, key: str, max_completion_length: int
) -> None:
    """Refuse prompts after which vLLM would cut completions, as it does silently at its limit.

    Args:
        rows: the prompts.
        lengths: tokens of each.
        limit: most tokens of prompt and completion together.
        of: where they are from, in words.
        key: the section of the study that has `engine` and `max_completion_length`: `rl` or `evaluation`.
        max_completion_length: most tokens of a completion.

    Errors: StudyError naming how many prompts are too long, the longest one, and the remedies.
    """
    room = limit - max_completion_length
    too_long = sum(length > room for length in lengths)
    if not too_long:
        return
    longest = max(range(len(rows)), key=lengths.__getitem__)
    enough = lengths[longest] + max_completion_length
    raise StudyError(
        [
            f"{key}.engine: vLLM would cut completions: {too_long} of {len(rows)} prompts of {of} leave too "
            f"little room. The longest, {rows[longest].prompt_id}, has {lengths[longest]} tokens, to which "
            f"{key}.max_completion_length adds {max_completion_length}; expected at most {limit} together. Raise "
            f"{key}.engine.max_model_length to {enough} (null takes the model's own limit), lower "
            f"{key}.max_completion_length, or have data.max_prompt_length reject prompts of more than {room} tokens"
        ]
    )
