"""From drafts to rows: content checked, media admitted, duplicates and leaks refused, one split after the other."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from PIL.Image import Image

from rlassay.bar import progress_bar
from rlassay.config import StudyError
from rlassay.data.drafts import Draft, RowRefusedError, Source, UnsuitableError
from rlassay.data.duplicates import Seen, Shown, text_digest
from rlassay.data.identity import content_id
from rlassay.data.image_policy import below, encode, perceptual_hash
from rlassay.data.images import Images, media_path
from rlassay.data.journal import Kept, Outcome, Refused
from rlassay.data.row_checks import row_problems
from rlassay.records import TRAINING_SPLITS, Media, PromptRow, row_line
from rlassay.rewards.gold import gold_refusal

SHOWN_PROBLEMS = 20
Refusal = Callable[[PromptRow, Sequence[Image]], str | None]
"""Why a row with these images may not be used, or None."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An image as it will be stored."""

    content: bytes
    """The file."""
    suffix: str
    """Ending of its name."""
    digest: str
    """SHA-256 of the file."""
    picture: Image
    """The same, decoded."""


@dataclass(kw_only=True)
class Intake:
    """Receives the drafts of all splits of one study."""

    source: Source
    """Where they come from."""
    images: Images
    """Receives their images."""
    too_long: Refusal
    """Refuses prompts of too many tokens."""
    seen: dict[str, Seen] = field(default_factory=dict)
    """What each split holds so far."""

    def admit(self, draft: Draft, split: str) -> Kept:
        """The draft's row; RowRefusedError with the reason if it cannot be used, and then nothing of it is stored."""
        row = _row(draft, split)
        stored = [self._encode(image, draft) for image in draft.images]
        videos = [below(path, draft.media_root, "video") for path in draft.videos]
        row = row.model_copy(update={"media": _named(stored, draft.videos)})
        if reason := self.too_long(row, [one.picture for one in stored]):
            raise UnsuitableError(reason)
        shown = Shown(
            text=text_digest(row),
            exact=(*(one.digest for one in stored), *draft.videos),
            hashes=tuple(perceptual_hash(one.picture) for one in stored),
            prompt_id=draft.prompt_id,
        )
        self._compare(shown, split)
        media = tuple(self.images.add(one.content, one.suffix, draft.jpeg_name) for one in stored)
        self._seen(split).add(shown)
        clips = tuple(Media(kind="video", path=str(path), frames=draft.frames) for path in videos)
        row = row.model_copy(update={"prompt_id": draft.prompt_id or content_id(row), "media": media + clips})
        return Kept(row=row_line(row), shown=shown, images=tuple(one.path for one in media))

    def recall(self, outcome: Outcome, split: str) -> bool:
        """Whether an earlier attempt's outcome still holds, its images being there; its row counts from now on."""
        if isinstance(outcome, Refused):
            return True
        known = zip(outcome.images, outcome.shown.exact, strict=False)
        if not all(self.images.recall(path, digest) for path, digest in known):
            return False
        self._seen(split).add(outcome.shown)
        return True

    def _encode(self, image: object, draft: Draft) -> Stored:
        content, suffix, picture = encode(image, draft.media_root, self.source.images, draft.jpeg_name is not None)
        return Stored(content=content, suffix=suffix, digest=hashlib.sha256(content).hexdigest(), picture=picture)

    def _seen(self, split: str) -> Seen:
        if split not in self.seen:
            self.seen[split] = Seen(split=split, exactly=self.source.drawn)
        return self.seen[split]

    def _compare(self, shown: Shown, split: str) -> None:
        """A training row may show nothing that an evaluation split has; only splits drawn apart share no prompt."""
        self._seen(split).refuse_duplicate(shown)
        for name, other in self.seen.items():
            if split in TRAINING_SPLITS and name not in TRAINING_SPLITS:
                other.refuse_duplicate(shown, "leak")
                other.refuse_shared_image(shown)
            elif name != split and self.source.drawn:
                other.refuse_duplicate(shown)


def in_order(splits: Iterable[str]) -> list[str]:
    """The splits in the order in which they are read: those for evaluation come first.

    So a training row that an evaluation split holds too is refused, and no training row ever changes an evaluation
    split. `sft` and `train` may share rows: one warms up on what the other goes on with.
    """
    return sorted(splits, key=lambda split: split in TRAINING_SPLITS)


def take_in(split: str, limit: int | None, intake: Intake, done: Iterable[Outcome] = ()) -> Iterator[Outcome]:
    """What becomes of the records of a split, one by one, each read when it is asked for.

    Args:
        limit: rows to keep; None keeps all.
        done: what an earlier attempt made of the first records; they are not given again.

    Errors: StudyError if fewer rows than `limit` are usable or, from a strict source, at the end and for all rows that
        are not; once there is such a row, nothing is given any more.
    """
    past = Counter(isinstance(outcome, Kept) for outcome in done)
    kept, problems = past[True], Problems()
    records = islice(intake.source.drafts[split](), past.total(), None)
    with progress_bar(split, limit, "row", done=kept) as bar:
        while kept != limit and (draft := next(records, None)) is not None:
            outcome = _outcome(draft, split, intake, problems)
            if outcome is not None and not problems:
                yield outcome
            kept += isinstance(outcome, Kept)
            bar.update(isinstance(outcome, Kept))
    problems.check()
    if limit is not None and kept < limit:
        raise StudyError([f"data.splits.{split}: asks for {limit} rows, but only {kept} are usable; lower it, or null"])


class Problems(list[str]):
    """What is wrong with a strict source: the first sentences, and how many more there are."""

    more = 0

    def note(self, problem: str) -> None:
        """Add a sentence, or count it where there are enough to show."""
        if len(self) < SHOWN_PROBLEMS:
            self.append(problem)
        else:
            self.more += 1

    def check(self) -> None:
        """StudyError if there is any."""
        if self:
            raise StudyError([*self, *([f"... and {self.more} more"] if self.more else [])])


def _outcome(draft: Draft | RowRefusedError, split: str, intake: Intake, problems: Problems) -> Outcome | None:
    """The record's outcome; None for a mistake in a strict source, which is noted among the problems."""
    try:
        if isinstance(draft, RowRefusedError):
            raise draft
        return intake.admit(draft, split)
    except UnsuitableError as unsuitable:
        return Refused(reason=str(unsuitable))
    except RowRefusedError as refused:
        if not intake.source.strict:
            return Refused(reason=str(refused))
        problems.note(f"{_where(draft)}{refused}")
        return None


def _where(draft: Draft | RowRefusedError) -> str:
    """Where a mistake stands, as its sentence begins; a source that refuses a record itself has said so."""
    if not isinstance(draft, Draft):
        return ""
    images = f" (with {', '.join(map(repr, draft.images))})" if draft.images else ""
    return f"{draft.where}{images}: "


def _row(draft: Draft, split: str) -> PromptRow:
    """The row without its media and its key."""
    row = PromptRow(
        prompt_id=draft.prompt_id,
        question=draft.question,
        answer=draft.answer,
        choices=draft.choices,
        demonstration=draft.demonstration if split == "sft" else None,
        meta=dict(draft.meta),
    )
    for problem in islice(row_problems(row, split), 1):
        raise RowRefusedError(re.sub(r"'.*?'", "...", problem.split(";")[0]))
    if reason := gold_refusal(row):
        raise UnsuitableError(reason)
    return row


def _named(stored: Sequence[Stored], videos: Sequence[str]) -> tuple[Media, ...]:
    """The row's media under names that are the same wherever they lie."""
    images = [Media(path=media_path(one.digest, one.suffix)) for one in stored]
    return (*images, *(Media(kind="video", path=path) for path in videos))
