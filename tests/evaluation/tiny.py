"""A study whose every job takes a second, and rows that need no data stage."""

from pathlib import Path
from typing import Any

from PIL import Image

from rlassay.config import Study
from rlassay.config.policies import Policy, policies
from rlassay.layout import Layout
from rlassay.records import Media, PromptRow, write_rows
from tests.config.studies import study

NUM_SFT, NUM_TRAIN, NUM_TEST = 12, 4, 5
SMALL: dict[str, Any] = {
    "model": {"kind": "tiny_vlm", "layers": 1, "width": 32, "vision_layers": 1, "vision_width": 16, "vocab_size": 300},
    "sft__max_steps": 3,
    "sft__learning_rate": 1e-2,
    "sft__per_device_train_batch_size": 4,
    "sft__save_steps": 1,
    "evaluation__num_samples": 2,
    "evaluation__batch_size": 4,
    "evaluation__max_completion_length": 6,
}
"""Edits of the built-in study: the smallest model, a warm start of three steps, short answers."""


def tiny_study(**edits: Any) -> Study:
    """The built-in study with `SMALL` and other edits."""
    return study(**SMALL | edits)


def write_data(layout: Layout) -> None:
    """Rows with one image each, in the splits `sft`, `train` and `test`."""
    (layout.data / "images").mkdir(parents=True)
    for index in range(3):
        Image.new("L", (16, 16), 80 * index).save(layout.data / f"images/{index}.png")
    for split, count in {"sft": NUM_SFT, "train": NUM_TRAIN, "test": NUM_TEST}.items():
        write_rows(layout.split(split), [_row(split, index) for index in range(count)])


def only(study_: Study, stage: str) -> Policy:
    """The first policy of a stage."""
    return next(policy for policy in policies(study_).values() if policy.stage == stage)


def layout_with_data(root: Path) -> Layout:
    """A results folder as the data stage leaves it."""
    layout = Layout(root=root)
    write_data(layout)
    return layout


def _row(split: str, index: int) -> PromptRow:
    letter = "ABCD"[index % 4]
    return PromptRow(
        prompt_id=f"{split}{index}",
        question="Which digit is larger?" if index % 2 else "Which digit is on the left?",
        answer=letter,
        choices=("3", "7", "1", "9"),
        media=(Media(path=f"images/{index % 3}.png"),),
        demonstration=f"<think>{index % 10}</think><answer>{letter}</answer>" if split == "sft" else None,
    )
