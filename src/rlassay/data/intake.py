"""From drafts to rows: media admitted, content checked, duplicates and leaks refused, one split after the other."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from rlassay.bar import progress_bar
from rlassay.config import StudyError
from rlassay.config.data import ImagePolicy
from rlassay.data.drafts import Draft, RowRefusedError
from rlassay.data.duplicates import Seen, Shown, shown_by
from rlassay.data.identity import content_id
from rlassay.data.image_policy import below, encode, perceptual_hash
from rlassay.data.images import Images
from rlassay.data.row_checks import row_problems
from rlassay.records import TRAINING_SPLITS, Media, PromptRow

Rows = dict[str, Iterator[PromptRow | RowRefusedError]]
"""What a source gives: per split, the rows to keep and, in between, why others were refused."""


@dataclass(kw_only=True)
class Intake:
    """Receives the drafts of all splits of one study."""

    policy: ImagePolicy
    """What becomes of the images."""
    images: Images
    """Receives them."""
    seen: dict[str, Seen] = field(default_factory=dict)
    """What each split holds so far."""

    def admit(self, draft: Draft, split: str) -> PromptRow:
        """The draft's row; RowRefusedError with the reason if it cannot be used."""
        files = [encode(image, draft.media_root, self.policy, draft.jpeg_name is not None) for image in draft.images]
        videos = [below(path, draft.media_root, "video") for path in draft.videos]
        names = tuple(hashlib.sha256(content).hexdigest() for content, _, _ in files) + draft.videos
        hashes = tuple(perceptual_hash(image) for _, _, image in files)
        row = _row(draft, split, names)
        shown = shown_by(row, names, hashes)
        self._compare(shown, split)
        media = [self.images.add(content, suffix, draft.jpeg_name) for content, suffix, _ in files]
        media += [Media(kind="video", path=str(path), frames=draft.frames) for path in videos]
        self.seen[split].add(shown)
        return row.model_copy(update={"media": tuple(media)})

    def _compare(self, shown: Shown, split: str) -> None:
        self.seen.setdefault(split, Seen(split=split)).refuse_duplicate(shown)
        for name, other in self.seen.items():
            if name != split and not {name, split} <= set(TRAINING_SPLITS):
                other.refuse_duplicate(shown)
                other.refuse_shared_image(shown)


def take_in(
    drafts: Mapping[str, Callable[[], Iterator[Draft | RowRefusedError]]],
    limits: Mapping[str, int | None],
    intake: Intake,
) -> Rows:
    """The rows of each split, read as they are asked for; the evaluation splits come first.

    So a training row that an evaluation split holds too is refused, and no training row ever changes an evaluation
    split. `sft` and `train` may share rows: one warms up on what the other goes on with.
    """
    order = sorted(drafts, key=lambda split: split in TRAINING_SPLITS)
    return {split: _take_split(split, drafts[split], limits[split], intake) for split in order}


def _take_split(
    split: str, drafts: Callable[[], Iterator[Draft | RowRefusedError]], limit: int | None, intake: Intake
) -> Iterator[PromptRow | RowRefusedError]:
    kept = 0
    with progress_bar(split, limit, "row") as bar:
        for draft in drafts():
            try:
                if isinstance(draft, RowRefusedError):
                    raise draft
                row = intake.admit(draft, split)
            except RowRefusedError as refused:
                yield refused
                continue
            yield row
            kept += 1
            bar.update()
            if kept == limit:
                return
    if limit is not None and kept < limit:
        raise StudyError([f"data.splits.{split}: asks for {limit} rows, but only {kept} are usable; lower it, or null"])


def _row(draft: Draft, split: str, names: tuple[str, ...]) -> PromptRow:
    """The row without its media files; its key is made of their digests, so that it is the same everywhere."""
    row = PromptRow(
        prompt_id="",
        question=draft.question,
        answer=draft.answer,
        choices=draft.choices,
        media=tuple(Media(path=name) for name in names),
        demonstration=draft.demonstration if split == "sft" else None,
        meta=dict(draft.meta),
    )
    for problem in islice(row_problems(row, split), 1):
        raise RowRefusedError(re.sub(r"'.*?'", "...", problem.split(";")[0]))
    return row.model_copy(update={"prompt_id": content_id(row)})
