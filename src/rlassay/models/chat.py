"""A row as the conversation that a model's own template takes."""

from typing import Any

from transformers import ProcessorMixin

from rlassay.config.training import Recipe
from rlassay.models.hub import Processor
from rlassay.prompts import instruction, messages
from rlassay.records import PromptRow


def chat(row: PromptRow, processor: Processor, told: bool) -> list[dict[str, Any]]:
    """The conversation that ends where the completion begins.

    Args:
        row: the prompt.
        processor: a processor takes each turn as parts (text, image); a tokenizer's template takes plain text.
        told: whether a system turn states the completion format; see `is_told`.
    """
    turns = messages(row, system=instruction(row) if told else None)
    if isinstance(processor, ProcessorMixin):
        return turns
    return [{**turn, "content": "".join(part["text"] for part in turn["content"])} for turn in turns]


def is_told(recipe: Recipe) -> bool:
    """Whether prompts state the completion format: only where no warm start demonstrates it."""
    return recipe.sft is None
