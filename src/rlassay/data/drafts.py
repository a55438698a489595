"""What a source reads off one record, before its media are admitted and its content is checked."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rlassay.config import StudyError
from rlassay.config.data import ImagePolicy
from rlassay.records import FrameSampling


class RowRefusedError(Exception):
    """A row that cannot be used; its text is the reason, worded alike for alike rows, so that it can be counted."""


class UnsuitableError(RowRefusedError):
    """A row that says nothing wrong, but stands elsewhere too, is too long, or is paid unfairly by the rewards."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One record in this project's words."""

    question: str
    """The question, without options and without instructions."""
    answer: str
    """The gold answer; for a multiple-choice row, its letter."""
    choices: tuple[str, ...] = ()
    """The option texts."""
    images: tuple[Any, ...] = ()
    """Images in any form that `read_image` takes."""
    videos: tuple[str, ...] = ()
    """Paths of clips, relative to `media_root`."""
    frames: FrameSampling | None = None
    """How many frames of the clips are shown."""
    media_root: Path | None = None
    """The folder that paths may not leave and are relative to; None = the source has no files, so paths are refused."""
    jpeg_name: str | None = None
    """Save the images as JPEG, under names that begin so; None keeps them as they are, or makes them PNG."""
    demonstration: str | None = None
    """A completion to imitate; it is kept in the `sft` split only."""
    meta: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """What the source knows besides."""
    prompt_id: str = ""
    """The row's key, where the source has given it one; by default it is a digest of the content."""
    where: str = ""
    """`file:line` for messages."""


Drafts = Callable[[], Iterator[Draft | RowRefusedError]]
"""Reads the records of one split from the first on, one by one, the same ones each time."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the rows of a study come from."""

    drafts: Mapping[str, Drafts]
    """By split; a record that is no draft is the reason why."""
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """The files behind each split: once one has changed, what was read of it before counts no longer."""
    images: ImagePolicy | None = None
    """What becomes of the images; None keeps them as they are."""
    strict: bool = False
    """Whether a row that cannot be used is a mistake to be mended instead of one to be left out and counted."""
    drawn: bool = False
    """Whether rows are drawn at random from small parts that evaluation and training splits do not share.

    Then no prompt stands in two splits, and pictures that merely look alike are different ones.
    """


Read = TypeVar("Read")


def draft_each(records: Iterable[Read], draft: Callable[[Read], Draft]) -> Iterator[Draft | RowRefusedError]:
    """Each record put into this project's words by `draft`, or the reason why that cannot be done."""
    for record in records:
        try:
            yield draft(record)
        except RowRefusedError as refused:
            yield refused


def text_of(value: Any, name: str) -> str:
    """A text or number as text, stripped; RowRefusedError for anything else, and for a text that cannot be written."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowRefusedError(f"{name}: it is missing" if value is None else f"{name}: it is no text")
    text = unicodedata.normalize("NFC", str(value)).strip()
    if any("\ud800" <= mark <= "\udfff" for mark in text):
        raise RowRefusedError(f"{name}: half a character (a lone surrogate)")
    return text


def list_of(value: Any) -> tuple[Any, ...]:
    """A list's items; one item stands for a list of it, and None for an empty one."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def split_files(folder: Path, names: Mapping[str, str], *, holds: str, remedy: str) -> dict[str, Path]:
    """The file of each split, all of which exist.

    Args:
        folder: where they lie.
        names: file names by split.
        holds: what a folder should hold, for the message.
        remedy: what to do about a missing file, with `{split!r}` in it.

    Errors: StudyError if the folder, or any of the files, is missing.
    """
    if not folder.is_dir():
        raise StudyError([f"data.folder: {folder} is no folder; expected one that holds {holds}"])
    files = {split: folder / name for split, name in names.items()}
    missing = [f"{file}: missing; {remedy.format(split=split)}" for split, file in files.items() if not file.is_file()]
    if missing:
        raise StudyError(missing)
    return files
