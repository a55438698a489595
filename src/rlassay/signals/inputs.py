# pyright: basic
# transformers' processors are untyped.
"""Model inputs for scoring completions, built from prompts and images by the model's own processor."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import ProcessorMixin

from rlassay.models.hub import Processor
from rlassay.models.policy import tokenizer_of
from rlassay.models.video_input import identities, images_and_clips, process_prompt, video_options
from rlassay.signals.passes import SharedPrompts

Prompt = str | list[dict[str, Any]]
"""Plain text, or a conversation that ends where the completion begins."""

_MARKER = "qxzSAIDzxq"
"""Text that no template or prompt contains."""


@dataclass(frozen=True, kw_only=True)
class SampledPrompts:
    """Prompts as the engine read them, which may differ from rendering the conversations again."""

    token_ids: Sequence[Sequence[int]]
    """Token ids of each completion's prompt."""
    rendering: Sequence[Mapping[str, Any]]
    """Keyword arguments of `apply_chat_template` for each prompt, such as `tools` or `enable_thinking`."""
    pad_to_multiple_of: int | None = None
    """Prompts are padded to a multiple of this; None pads to the longest."""
    images_in_completions: bool = False
    """Whether tools have shown images, whose placeholders are then in the completions."""


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """Inputs of a scoring pass: tokens, tensors of images, and which samples share prompts.

    Prompts are padded on the left, completions on the right.
    """

    by_token: dict[str, Int[Tensor, "batch keys"]]
    """`input_ids`, `attention_mask` and any other tensor with one value per position."""
    by_image: tuple[dict[str, Tensor], ...]
    """Tensors of each sample's images and clips (pixels, grids), to be concatenated over the batch; empty without."""
    completion_length: int
    """C, the longest completion, tokens."""
    system_lengths: tuple[int, ...]
    """Number of tokens in each prompt's system block, with which the prompt begins."""
    prompts: tuple[int, ...]
    """An index of each sample's prompt, equal for samples with the same tokens and pixels."""

    def __len__(self) -> int:
        return len(self.by_image)

    @property
    def has_image(self) -> list[bool]:
        """Whether each sample has an image or a clip."""
        return ["pixel_values" in each or "pixel_values_videos" in each for each in self.by_image]

    def batch(self, rows: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Arguments of `forward` for some of the samples."""
        tokens = {name: values[list(rows)] for name, values in self.by_token.items()}
        names = sorted({name for row in rows for name in self.by_image[row]})
        images = {
            name: torch.cat([self.by_image[row][name] for row in rows if name in self.by_image[row]]) for name in names
        }
        return {name: values.to(device) for name, values in {**tokens, **images}.items()}

    def shared_prompts(self, rows: Sequence[int], device: torch.device) -> SharedPrompts:
        """The distinct prompts of some of the samples."""
        numbers = [self.prompts[row] for row in rows]
        distinct = list(dict.fromkeys(numbers))
        first_rows = [numbers.index(number) for number in distinct]
        inputs = self.batch([rows[first] for first in first_rows], device)
        prompts = {
            name: values[:, : -self.completion_length] for name, values in inputs.items() if name in self.by_token
        }
        return SharedPrompts(
            inputs={**inputs, **prompts},
            first_rows=first_rows,
            of_rows=[distinct.index(number) for number in numbers],
        )


def model_inputs(
    processor: Processor,
    prompts: Sequence[Prompt],
    images: Sequence[Sequence[Any] | None] | None,
    completion_ids: Int[Tensor, "batch time"],
    completion_mask: Int[Tensor, "batch time"],
) -> ModelInputs:
    """Inputs for a teacher-forced pass over completions; a repeated prompt is processed once.

    Args:
        processor: the model's processor, or its tokenizer for a text model.
        prompts: one per completion.
        images: PIL images of each prompt in their order, and its clips; None without any.
        completion_ids: (B, C), padded on the right.
        completion_mask: (B, C), 1 where a completion has a token; 0 after its end.
    """
    processed: dict[Hashable, _Processed] = {}
    keys: list[Hashable] = []
    for prompt, of_prompt in zip(prompts, _lists(images, len(prompts)), strict=True):
        text = _rendered(processor, prompt, {})
        keys.append((text, *identities(of_prompt)))
        if keys[-1] not in processed:
            made = _processed(processor, text, of_prompt, with_special_tokens=isinstance(prompt, str))
            length = 0 if isinstance(prompt, str) else system_length(processor, prompt, made.by_token["input_ids"])
            processed[keys[-1]] = replace(made, system_length=length)
    return _joined(processor, processed, keys, completion_ids, completion_mask)


def sampled_inputs(
    processor: Processor,
    prompts: Sequence[Prompt],
    images: Sequence[Sequence[Any] | None] | None,
    completion_ids: Int[Tensor, "batch time"],
    completion_mask: Int[Tensor, "batch time"],
    sampled: SampledPrompts,
) -> ModelInputs:
    """Inputs for a teacher-forced pass over exactly the tokens and images that the engine read.

    Lengths of system blocks are 0 at first, see `with_system_blocks`.

    Args:
        processor, prompts, completion_ids, completion_mask: see `model_inputs`.
        images: PIL images of each prompt in their order, and its clips, then images of its completion; None without.
        sampled: the prompts' token ids, and how their conversations were rendered.
    """
    processed: dict[Hashable, _Processed] = {}
    keys: list[Hashable] = []
    for row, (prompt, of_row) in enumerate(zip(prompts, _lists(images, len(prompts)), strict=True)):
        # Completions with images of their own share no prompt: a prompt alone has fewer placeholders than images.
        own = row if sampled.images_in_completions else None
        keys.append((own, *sampled.token_ids[row], *identities(of_row)))
        if keys[-1] not in processed:
            processed[keys[-1]] = _as_sampled(processor, prompt, of_row, sampled, row)
    inputs = _joined(processor, processed, keys, completion_ids, completion_mask, sampled.pad_to_multiple_of)
    if not sampled.images_in_completions:
        return inputs
    # As in TRL: only models with grids and those of Gemma's kind take types, and both are tensors per position.
    name = "mm_token_type_ids" if any("image_grid_thw" in each for each in inputs.by_image) else "token_type_ids"
    types = {name: _token_types(processor, inputs.by_token["input_ids"])} if _takes_types(processor, name) else {}
    return replace(inputs, by_token={**inputs.by_token, **types})


def with_system_blocks(
    processor: Processor, inputs: ModelInputs, prompts: Sequence[Prompt], sampled: SampledPrompts
) -> ModelInputs:
    """The same inputs with the lengths of their system blocks, see `system_length`."""
    blocks: dict[str, list[int]] = {}
    known: dict[int, int] = {}
    for row, (number, prompt) in enumerate(zip(inputs.prompts, prompts, strict=True)):
        if isinstance(prompt, str):
            known[number] = 0
        elif number not in known:
            rendering = sampled.rendering[row]
            like = repr((_system_turns(prompt), type(prompt[-1]["content"]), rendering))
            if like not in blocks:
                blocks[like] = _system_block(processor, prompt, rendering)
            known[number] = _common_prefix(blocks[like], list(sampled.token_ids[row]))
    return replace(inputs, system_lengths=tuple(known[number] for number in inputs.prompts))


def with_images(
    processor: Processor,
    inputs: ModelInputs,
    images: Sequence[Sequence[Any] | None],
    prompts: Sequence[int] | None = None,
) -> ModelInputs:
    """The same inputs with other pixels, from images of the original sizes.

    Args:
        processor: the model's processor.
        inputs: inputs made from the original images.
        images: PIL images of each sample, and its clips, as many as before.
        prompts: an index of each sample's prompt, equal for samples with the same tokens and new images, which are
            processed once; None = all differ.

    Errors: ValueError if a sample has too few or too many images, or if they give tensors of other names or shapes.
    """
    image_processor: Any = processor.image_processor  # pyright: ignore[reportAttributeAccessIssue]
    numbers = tuple(range(len(inputs)) if prompts is None else prompts)
    made_of: dict[int, dict[str, Tensor]] = {}
    for sample, (number, of_sample, before) in enumerate(zip(numbers, images, inputs.by_image, strict=True)):
        if number in made_of:
            continue
        pictures, clips = images_and_clips(of_sample or ())
        made = dict(image_processor(images=pictures, return_tensors="pt")) if pictures else {}
        if clips:
            video_processor: Any = processor.video_processor  # pyright: ignore[reportAttributeAccessIssue]
            made |= video_processor(**video_options(clips), return_tensors="pt")
        after = {**before, **made}
        shapes = [{name: tuple(values.shape) for name, values in each.items()} for each in (before, after)]
        if shapes[0] != shapes[1] or bool(of_sample) != inputs.has_image[sample]:
            raise ValueError(f"images of sample {sample}: expected tensors of shapes {shapes[0]}, got {shapes[1]}")
        made_of[number] = after
    return replace(inputs, by_image=tuple(made_of[number] for number in numbers), prompts=numbers)


@dataclass(frozen=True, kw_only=True)
class _Processed:
    """Processor outputs of one prompt."""

    by_token: dict[str, Int[Tensor, "positions"]]
    by_image: dict[str, Tensor]
    system_length: int


def _lists(images: Sequence[Sequence[Any] | None] | None, size: int) -> list[list[Any]]:
    return [[] for _ in range(size)] if images is None else [list(each or ()) for each in images]


def _rendered(processor: Any, prompt: Prompt, rendering: Mapping[str, Any]) -> str:
    if isinstance(prompt, str):
        return prompt
    return processor.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **rendering)


def _processed(processor: Any, text: str, media: list[Any], *, with_special_tokens: bool) -> _Processed:
    # A chat template has already written the begin-of-sequence token, if there is one; plain text has not.
    if isinstance(processor, ProcessorMixin):
        by_token, by_image = process_prompt(processor, text, media, with_special_tokens=with_special_tokens)
    else:
        made = processor([text], return_tensors="pt", add_special_tokens=with_special_tokens)
        by_token, by_image = {name: values[0] for name, values in made.items()}, {}
    return _Processed(by_token=by_token, by_image=by_image, system_length=0)


def _as_sampled(
    processor: Processor, prompt: Prompt, images: list[Any], sampled: SampledPrompts, row: int
) -> _Processed:
    """Tokens of a sample's prompt as the engine read them, and its prepared images.

    The processor prepares the images.
    """
    ids = torch.tensor(sampled.token_ids[row])
    by_token = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    by_image: dict[str, Tensor] = {}
    if images and sampled.images_in_completions:
        image_processor: Any = processor.image_processor  # pyright: ignore[reportAttributeAccessIssue]
        by_image = dict(image_processor(images=images, return_tensors="pt"))
    elif images:
        text = _rendered(processor, prompt, sampled.rendering[row])
        made = _processed(processor, text, images, with_special_tokens=False)
        by_token, by_image = _retokenized(processor, made.by_token, ids), made.by_image
    return _Processed(by_token=by_token, by_image=by_image, system_length=0)


def _retokenized(processor: Any, by_token: dict[str, Tensor], ids: Int[Tensor, "positions"]) -> dict[str, Tensor]:
    """The processor's tensors per position, adapted to `ids` if the engine read other tokens."""
    if torch.equal(by_token["input_ids"], ids):
        return by_token
    types = _token_types(processor, ids)
    made = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {name: made.get(name, types) for name in by_token}


def _token_types(processor: Any, ids: Int[Tensor, "*axes"]) -> Int[Tensor, "*axes"]:
    """1 on placeholders of images, 2 on those of videos, else 0."""
    kinds = {"image_token_id": 1, "video_token_id": 2}
    types = torch.zeros_like(ids)
    for name, kind in kinds.items():
        token: int | None = getattr(processor, name, None)  # each processor has those that its model knows
        types[ids == (-1 if token is None else token)] = kind
    return types


def _takes_types(processor: Any, name: str) -> bool:
    names: list[str] = processor.model_input_names
    return name in names


def _joined(
    processor: Processor,
    processed: Mapping[Hashable, _Processed],
    keys: Sequence[Hashable],
    completion_ids: Int[Tensor, "batch time"],
    completion_mask: Int[Tensor, "batch time"],
    multiple: int | None = None,
) -> ModelInputs:
    """Inputs of the prompts with these keys, one per completion."""
    rows, numbers = [processed[key] for key in keys], {key: number for number, key in enumerate(processed)}
    pad_token_id: Any = tokenizer_of(processor).pad_token_id
    longest = max(len(each.by_token["input_ids"]) for each in rows)
    length = longest if multiple is None else -(-longest // multiple) * multiple
    return ModelInputs(
        by_token=_by_token(rows, length, completion_ids, completion_mask, pad_token_id),
        by_image=tuple(each.by_image for each in rows),
        completion_length=completion_ids.shape[1],
        system_lengths=tuple(each.system_length for each in rows),
        prompts=tuple(numbers[key] for key in keys),
    )


def _by_token(
    processed: Sequence[_Processed],
    length: int,
    completion_ids: Int[Tensor, "batch time"],
    completion_mask: Int[Tensor, "batch time"],
    pad_token_id: int,
) -> dict[str, Int[Tensor, "batch keys"]]:
    """Tensors per position: prompts padded on the left, then completions; 0 where a prompt lacks a tensor."""
    joined = {}
    for name in sorted({name for each in processed for name in each.by_token}):
        fill = pad_token_id if name == "input_ids" else 0
        table = torch.full((len(processed), length), fill, dtype=torch.long)
        for row, each in zip(table, processed, strict=True):
            if name in each.by_token:
                row[length - len(each.by_token[name]) :] = each.by_token[name]
        completion = {"input_ids": completion_ids, "attention_mask": completion_mask}.get(name)
        after = torch.zeros_like(completion_ids) if completion is None else completion
        joined[name] = torch.cat([table.to(after.device), after.long()], dim=1)
    return joined


def system_length(
    processor: Any,
    prompt: list[dict[str, Any]],
    prompt_ids: Int[Tensor, "positions"],
    rendering: Mapping[str, Any] | None = None,
) -> int:
    """Number of tokens in the system block that begins a prompt.

    A default block from the template counts too. It works with any chat template. The template renders the system turn,
    if there is one, before a user, an assistant and a user turn that all contain the same marker text. The text before
    the first marker is the system block and a user header; the text before the third marker ends with that same header.
    Removing it leaves the system block.

    Args:
        processor: a processor or a tokenizer with a chat template.
        prompt: the conversation.
        prompt_ids: its token ids, without padding.
        rendering: further arguments of `apply_chat_template`.

    Errors: ValueError if the template does not render each turn's text exactly once.
    """
    return _common_prefix(_system_block(processor, prompt, rendering or {}), prompt_ids.tolist())


def _system_block(processor: Any, prompt: list[dict[str, Any]], rendering: Mapping[str, Any]) -> list[int]:
    """Token ids of a prompt's system block, from its system turn and content kind."""
    parts_of_text = [{"type": "text", "text": _MARKER}]
    content: Any = parts_of_text if isinstance(prompt[-1]["content"], list) else _MARKER
    turns = [{"role": role, "content": content} for role in ("user", "assistant", "user")]
    text = processor.apply_chat_template([*_system_turns(prompt), *turns], tokenize=False, **rendering)
    parts = text.split(_MARKER)
    if len(parts) != len(turns) + 1:
        raise ValueError(f"chat template: expected the text of {len(turns)} turns, got {len(parts) - 1}: {text!r}")
    first, second = (
        tokenizer_of(processor)(part, add_special_tokens=False)["input_ids"] for part in (parts[0], parts[2])
    )
    return first[: len(first) - _common_prefix(first[::-1], second[::-1])]


def _system_turns(prompt: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [turn for turn in prompt[:1] if turn["role"] == "system"]


def _common_prefix(one: list[int], other: list[int]) -> int:
    """Length of the common prefix."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
