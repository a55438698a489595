"""Rows as the data set that `trl.GRPOTrainer` draws prompts from."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from rlassay.models.chat import chat
from rlassay.models.hub import Processor
from rlassay.records import PromptRow

IMAGES_IN_MEMORY = 256


def prompt_dataset(rows: Sequence[PromptRow], processor: Processor, data: Path, *, told: bool) -> datasets.Dataset:
    """The columns `prompt_id`, `prompt` (chat messages) and, if any row has some, `images` (RGB).

    Args:
        rows: the prompts.
        processor: decides the form of the messages.
        data: folder that image paths start from.
        told: whether a system turn states the completion format.

    Messages and images are made when a batch is drawn: a table would give every part of a message the keys of all
    parts, and would decode an image once per completion.
    """
    by_id = {row.prompt_id: row for row in rows}
    with_images = any(row.media for row in rows)
    image = lru_cache(maxsize=IMAGES_IN_MEMORY)(_image)

    def drawn(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        chosen = [by_id[prompt_id] for prompt_id in batch["prompt_id"]]
        columns: dict[str, list[Any]] = {**batch, "prompt": [chat(row, processor, told) for row in chosen]}
        if with_images:
            columns["images"] = [[image(data / item.path) for item in row.media] for row in chosen]
        return columns

    return datasets.Dataset.from_dict({"prompt_id": list(by_id)}).with_transform(drawn)


def _image(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
