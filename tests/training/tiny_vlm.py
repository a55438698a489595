"""A built-in vision model with a random head, and its data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from rlassay.images import StudyImages
from rlassay.models.policy import ChatFormat
from rlassay.models.tiny import build_tiny_vlm
from rlassay.records import PromptRow
from rlassay.training.prompts import prompt_dataset
from tests.models.hubs import SMALLEST, TEXTS


def varied_vlm() -> tuple[Any, Any]:
    """Model and processor; the model's own head would repeat the last token."""
    model, processor = build_tiny_vlm(SMALLEST, TEXTS)
    head = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
    model.lm_head.weight = torch.nn.Parameter(head)
    return model, processor


def dataset_of(rows: Sequence[PromptRow], processor: Any, folder: Path) -> Dataset:
    """The rows in their order, with images below `folder`."""
    return prompt_dataset(
        {row.prompt_id: row for row in rows},
        [row.prompt_id for row in rows],
        ChatFormat(processor=processor, with_format_instruction=False),
        StudyImages(folder),
    )
