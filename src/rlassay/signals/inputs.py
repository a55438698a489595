# pyright: basic
# transformers' processors are untyped.
"""Model inputs for scoring completions, built from prompts and images by the model's own processor."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import ProcessorMixin

from rlassay.models.hub import Processor
from rlassay.models.policy import tokenizer_of
from rlassay.signals.passes import SharedPrompts

Prompt = str | list[dict[str, Any]]
"""Plain text, or a conversation that ends where the completion begins."""

_MARKER = "qxzSAIDzxq"
"""Text that no template or prompt contains."""


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """Prompts with their completions: prompts padded on the left, completions on the right."""

    by_token: dict[str, Int[Tensor, "batch keys"]]
    """`input_ids`, `attention_mask` and any other tensor with one value per position."""
    by_image: tuple[dict[str, Tensor], ...]
    """Tensors of each sample's images (pixels, grids), to be concatenated over the batch; empty without images."""
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
        """Whether each sample has an image."""
        return ["pixel_values" in each for each in self.by_image]

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
        images: PIL images of each prompt in their order; None without images.
        completion_ids: (B, C), padded on the right.
        completion_mask: (B, C), 1 where a completion has a token; 0 after its end.
    """
    images_of: list[list[Any]] = [[] for _ in prompts] if images is None else [list(each or ()) for each in images]
    known: dict[Any, _Processed] = {}
    processed: list[_Processed] = []
    for prompt, of_prompt in zip(prompts, images_of, strict=True):
        text = _rendered(processor, prompt)
        key = (text, *map(id, of_prompt))
        if key not in known:
            known[key] = _processed(processor, prompt, text, of_prompt)
        processed.append(known[key])
    order = [id(each) for each in known.values()]
    pad_token_id: Any = tokenizer_of(processor).pad_token_id
    by_token = _by_token(processed, completion_ids, completion_mask, pad_token_id)
    return ModelInputs(
        by_token=by_token,
        by_image=tuple(each.by_image for each in processed),
        completion_length=completion_ids.shape[1],
        system_lengths=tuple(each.system_length for each in processed),
        prompts=tuple(order.index(id(each)) for each in processed),
    )


def with_images(processor: Processor, inputs: ModelInputs, images: Sequence[Sequence[Any] | None]) -> ModelInputs:
    """The same inputs with other pixels, from images of the same sizes as the original ones.

    Args:
        processor: the model's processor.
        inputs: inputs made from the original images.
        images: PIL images of each sample, as many as before.

    Errors: ValueError if a sample has too few or too many images, or if they give tensors of other names or shapes.
    """
    image_processor: Any = processor.image_processor  # pyright: ignore[reportAttributeAccessIssue]
    by_image = []
    for sample, (of_sample, before) in enumerate(zip(images, inputs.by_image, strict=True)):
        made = dict(image_processor(images=list(of_sample), return_tensors="pt")) if of_sample else {}
        after = {**before, **made}
        shapes = [{name: tuple(values.shape) for name, values in each.items()} for each in (before, after)]
        if shapes[0] != shapes[1] or bool(of_sample) != inputs.has_image[sample]:
            raise ValueError(f"images of sample {sample}: expected tensors of shapes {shapes[0]}, got {shapes[1]}")
        by_image.append(after)
    return replace(inputs, by_image=tuple(by_image), prompts=tuple(range(len(inputs))))


@dataclass(frozen=True, kw_only=True)
class _Processed:
    """Processor outputs of one prompt."""

    by_token: dict[str, Int[Tensor, "positions"]]
    by_image: dict[str, Tensor]
    system_length: int


def _rendered(processor: Any, prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return processor.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)


def _processed(processor: Any, prompt: Prompt, text: str, images: list[Any]) -> _Processed:
    # A chat template has already written the begin-of-sequence token, if there is one; plain text has not.
    options: dict[str, Any] = {"return_tensors": "pt", "add_special_tokens": isinstance(prompt, str)}
    if isinstance(processor, ProcessorMixin):
        made = processor(text=[text], images=images or None, **options)  # pyright: ignore[reportCallIssue]
    else:
        made = processor([text], **options)
    per_token = made["input_ids"].shape
    by_token = {name: values[0] for name, values in made.items() if values.shape == per_token}
    return _Processed(
        by_token=by_token,
        by_image={name: values for name, values in made.items() if name not in by_token},
        system_length=0 if isinstance(prompt, str) else system_length(processor, prompt, by_token["input_ids"]),
    )


def _by_token(
    processed: Sequence[_Processed],
    completion_ids: Int[Tensor, "batch time"],
    completion_mask: Int[Tensor, "batch time"],
    pad_token_id: int,
) -> dict[str, Int[Tensor, "batch keys"]]:
    """Tensors per position: prompts padded on the left, then completions; 0 where a prompt lacks a tensor."""
    length = max(len(each.by_token["input_ids"]) for each in processed)
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


def system_length(processor: Any, prompt: list[dict[str, Any]], prompt_ids: Int[Tensor, "positions"]) -> int:
    """Number of tokens in the system block that begins a prompt, including a default one from the template.

    It works with any chat template. The template renders the system turn, if there is one, before a user, an assistant
    and a user turn that all contain the same marker text. The text before the first marker is the system block and a
    user header; the text before the third marker ends with that same header. Removing it leaves the system block.

    Args:
        processor: a processor or a tokenizer with a chat template.
        prompt: the conversation.
        prompt_ids: its token ids, without padding.

    Errors: ValueError if the template does not render each turn's text exactly once.
    """
    content: Any = _MARKER if isinstance(prompt[-1]["content"], str) else [{"type": "text", "text": _MARKER}]
    system = [turn for turn in prompt[:1] if turn["role"] == "system"]
    turns = [{"role": role, "content": content} for role in ("user", "assistant", "user")]
    text = processor.apply_chat_template([*system, *turns], tokenize=False)
    parts = text.split(_MARKER)
    if len(parts) != len(turns) + 1:
        raise ValueError(f"chat template: expected the text of {len(turns)} turns, got {len(parts) - 1}: {text!r}")
    first, second = (
        tokenizer_of(processor)(part, add_special_tokens=False)["input_ids"] for part in (parts[0], parts[2])
    )
    block = first[: len(first) - _common_prefix(first[::-1], second[::-1])]
    return _common_prefix(block, prompt_ids.tolist())


def _common_prefix(one: list[int], other: list[int]) -> int:
    """Length of the common prefix."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
