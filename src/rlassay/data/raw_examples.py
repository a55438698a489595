"""Raw examples: the fields of a source's record, before checks and reading of media."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from rlassay.config import StudyError
from rlassay.config.data import ClipPolicy, ImagePolicy
from rlassay.records import FrameSampling, PairedBy, RefusedPair

NOT_WANTED = "question_id: not in data.question_ids"
"""Reason of records that a study leaves out on purpose."""
LONGEST_DETAIL = 200
"""Characters kept of an unexpected error's message."""


class RowRejectedError(Exception):
    """A record that cannot become a row; similar records have the same text, the reason, and are counted together."""

    where: str = ""
    """The record's place in its source, `file:line` or `file: row 3`."""
    detail: str = ""
    """Details of this record, such as the message of an unexpected error."""
    match: tuple[PairedBy, str, int] | None = None
    """Of a duplicate or leak: the content that is alike, and the repeated row. It is split and line (from 0)."""
    pair: RefusedPair | None = None
    """Of a duplicate or leak: the record beside the row that it repeats."""


class UnsuitableRowError(RowRejectedError):
    """A correct record that is unsuitable for the study.

    It is a duplicate, a leak, too long, or its gold answer gets less than full reward.
    """


@dataclass(frozen=True, kw_only=True)
class RawExample:
    """One record of a source, in the fields that all sources share."""

    question: str
    """The question, without options and without instructions."""
    answer: str
    """The gold answer; for a multiple-choice row, its letter."""
    choices: tuple[str, ...] = ()
    """The option texts."""
    images: tuple[Any, ...] = ()
    """Images in any form that `read_image` accepts."""
    videos: tuple[str | bytes, ...] = ()
    """Clips: paths relative to `media_root`, or the content of a file that the study keeps."""
    frames: FrameSampling | None = None
    """How many frames of the clips to sample."""
    media_root: Path | None = None
    """The folder that media paths are relative to and may not leave; None = the source has no files: paths fail."""
    jpeg_name: str | None = None
    """Save the images as JPEG, with this prefix in their file names; None keeps their format or makes them PNG."""
    demonstration: str | None = None
    """A completion to imitate; only the `sft` split keeps it."""
    meta: Mapping[str, str | int | float | bool] = field(default_factory=dict[str, str | int | float | bool])
    """Other facts about the record, such as its id in the source."""
    prompt_id: str = ""
    """The row's key, if the source gives one; otherwise it is a digest of the content."""
    where: str = ""
    """Its place in the source, `file:line` or `file: row 3`, for messages; empty for generated rows."""


ReadExamples = Callable[[], Iterator[RawExample | RowRejectedError]]
"""Reads the examples of one split lazily from the first on; every call yields the same ones."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A study's source of rows: a reader per split, and how its records are handled."""

    examples: Mapping[str, ReadExamples]
    """Split -> its reader; a record that cannot be converted is yielded as its error."""
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict[str, tuple[Path, ...]])
    """Split -> the files it is read from; if one changes, earlier outcomes of that split are discarded."""
    images: ImagePolicy | None = None
    """Limits on the images; None stores them unchanged."""
    clips: ClipPolicy = field(default_factory=ClipPolicy)
    """Which frames of clips are shown."""
    strict: bool = False
    """Whether an invalid record is an error; otherwise it is rejected and counted."""
    generated: bool = False
    """Whether rows are generated. The next one then replaces a rejected one, and the share of these is not limited."""
    drawn: bool = False
    """Whether rows are drawn at random from a small pool.

    Training and evaluation have different pools. Then no two splits share a prompt, and images that only look alike
    count as different.
    """


Parsed = TypeVar("Parsed")


def convert_each(
    records: Iterable[tuple[Parsed, str] | RowRejectedError], convert: Callable[[Parsed], RawExample]
) -> Iterator[RawExample | RowRejectedError]:
    """Each record as a raw example, or the error that rejects it; an unexpected error rejects its record only.

    Args:
        records: each record with its place in the source; one that cannot be parsed is given as its error.
        convert: from a record to a raw example.
    """
    for record in records:
        if isinstance(record, RowRejectedError):
            yield record
            continue
        parsed, where = record
        try:
            with rejecting(where):
                example = replace(convert(parsed), where=where)
        except RowRejectedError as rejected:
            yield rejected
        else:
            yield example


@contextmanager
def rejecting(where: str) -> Generator[None, None, None]:
    """Turn every error about one record into a RowRejectedError with the record's place.

    A StudyError passes, since it is about the study or a whole file, and so does a MemoryError.
    """
    try:
        yield
    except (StudyError, MemoryError):
        raise
    except RowRejectedError as rejected:
        rejected.where = rejected.where or where
        raise
    except Exception as error:
        rejected = RowRejectedError(f"unexpected {type(error).__name__}")
        rejected.where, rejected.detail = where, " ".join(str(error).split())[:LONGEST_DETAIL]
        raise rejected from error


def split_files(folder: Path, names: Mapping[str, str], *, holds: str, remedy: str) -> dict[str, Path]:
    """The file of each split, after checking that all of them exist.

    Args:
        folder: the folder of the files.
        names: file names by split.
        holds: files that the folder should contain, for the error message.
        remedy: how to fix a missing file, with `{split!r}` in it.

    Errors: StudyError if the folder, or any of the files, is missing.
    """
    if not folder.is_dir():
        raise StudyError([f"data.folder: {folder} is not a folder; expected a folder with {holds}"])
    files = {split: folder / name for split, name in names.items()}
    missing = [f"{file}: missing; {remedy.format(split=split)}" for split, file in files.items() if not file.is_file()]
    if missing:
        raise StudyError(missing)
    return files
