"""Convert rows to the data set from which `trl.GRPOTrainer` draws prompts."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets  # pyright: ignore[reportMissingTypeStubs]
import numpy as np

from rlassay.images import StudyImages
from rlassay.models.policy import ChatFormat
from rlassay.records import PromptRow


def prompt_order(prompt_ids: Sequence[str], batch_size: int, num_batches: int, seed: int) -> list[str]:
    """A run's prompts, batch after batch: repeated passes in new random orders.

    TRL's own sampler restarts its shuffling when a run resumes, and would repeat the first pass; an order that is fixed
    beforehand resumes exactly. As in TRL, a pass drops the prompts that do not fill a batch.

    Args:
        prompt_ids: the split's prompts.
        batch_size: prompts per generation batch.
        num_batches: generation batches of the run.
        seed: the run's seed.

    Errors: ValueError if the split cannot fill one batch.
    """
    per_pass = len(prompt_ids) // batch_size * batch_size
    if per_pass == 0:
        raise ValueError(f"the train split has {len(prompt_ids)} prompts, but a generation batch takes {batch_size}")
    random = np.random.default_rng(seed)
    order: list[str] = []
    while len(order) < num_batches * batch_size:
        order += [prompt_ids[int(index)] for index in random.permutation(len(prompt_ids))[:per_pass]]
    return order[: num_batches * batch_size]


def prompt_dataset(
    rows: Mapping[str, PromptRow],
    order: Sequence[str],
    chat_format: ChatFormat,
    images: StudyImages,
) -> datasets.Dataset:
    """The columns `prompt_id`, `prompt` (chat messages) and, if any row has some, `images` (RGB).

    Where clips go to the processor's video input, images and clips are inside the messages, see `VideoTrainer`.

    Args:
        rows: the prompts by `prompt_id`.
        order: their ids in the order in which the trainer draws them.
        chat_format: turns a row into messages.
        images: opens the images of rows.

    Messages and images are made when a batch is drawn: a table would give every part of a message the keys of all
    parts, and would decode an image once per completion.

    Errors: ValueError if some rows show images and others none, which TRL cannot train on in one batch; where a row
    shows a clip by the video input, `VideoTrainer` can.
    """
    columns = _MakeColumns(rows, chat_format, images)
    without = [prompt_id for prompt_id, row in rows.items() if not row.media]
    if without and len(without) < len(rows) and not columns.with_video:
        raise ValueError(
            f"the train split has {len(without)} rows without an image, such as {without[0]}, beside "
            f"{len(rows) - len(without)} with one; TRL cannot train on both in one batch: keep one kind"
        )
    library: Any = datasets
    return library.Dataset.from_dict({"prompt_id": list(order)}).with_transform(columns)


class _MakeColumns:
    """Converts a batch of prompt ids to the columns that the trainer reads."""

    def __init__(self, rows: Mapping[str, PromptRow], chat_format: ChatFormat, images: StudyImages) -> None:
        self.rows = rows
        self.with_images = any(row.media for row in rows.values())
        kinds = {item.kind for row in rows.values() for item in row.media}
        self.with_video = "video" in kinds and chat_format.clips.show == "video"
        self.chat_format = chat_format
        self.images = images

    def __call__(self, batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        rows = [self.rows[prompt_id] for prompt_id in batch["prompt_id"]]
        columns: dict[str, list[Any]] = {
            **batch,
            "prompt": [self.chat_format.prompt(row) for row in rows],
        }
        if self.with_video:  # see `VideoTrainer`: TRL's own columns are for images only
            columns["prompt"] = [self._with_media(row) for row in rows]
        elif self.with_images:
            columns["images"] = [self.images(self.chat_format.images(row)) for row in rows]
        return columns

    def _with_media(self, row: PromptRow) -> list[dict[str, Any]]:
        """The row's messages with its images and clips inside."""
        media = {
            "image": iter(self.images(self.chat_format.images(row))),
            "video": iter(self.chat_format.video_clips(row, self.images)),
        }
        return [
            {
                **turn,
                "content": [
                    part if part["type"] == "text" else {**part, part["type"]: next(media[part["type"]])}
                    for part in turn["content"]
                ],
            }
            for turn in self.chat_format.prompt(row)
        ]

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # `datasets` fingerprints a transform by pickling it; prompt ids are digests of the rows' content.
        return str, (" ".join(self.rows),)
