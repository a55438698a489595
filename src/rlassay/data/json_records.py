"""Sources in JSON files with media by path.

They have rows in this project's format, prompts with answers, or conversations.
"""

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from rlassay.config import StudyError
from rlassay.config.data import Conversations, Jsonl, JsonlPrompts, RecordSection
from rlassay.data.raw_examples import (
    RawExample,
    RowRejectedError,
    Source,
    convert_each,
    split_files,
)
from rlassay.data.row_checks import row_problems
from rlassay.data.values import list_of, parse_json, text_of
from rlassay.names import nearest
from rlassay.records import FrameSampling, parse_row

HEAD = 100
"""Records in which a key that the study names must occur at least once."""
OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""File name ending -> how a compressed file is opened."""
_MARKS = re.compile(r"<(?:image|video)>\n?")
_FRAME_KEYS = {"frame_cnts", "min_frames", "max_frames", "dynamic_sample"}


@dataclass(frozen=True, kw_only=True)
class JsonRecord:
    """One object of a JSON file."""

    values: Mapping[str, Any]
    """Key -> value."""
    known: Collection[str]
    """All keys of the first HEAD objects of its file."""
    where: str
    """Its `file:line`, or `file: record 3`."""


def jsonl(section: Jsonl) -> Source:
    """Rows in this project's format, `<folder>/<split>.jsonl`; an invalid row is an error with its file and line.

    A row without `prompt_id` gets the digest of its content. As for every source, duplicates and leaks are rejected
    and counted.

    Errors: StudyError if the folder or a file is missing.
    """
    files = split_files(
        Path(section.folder),
        {split: f"{split}.jsonl" for split in section.splits},
        holds="<split>.jsonl files",
        remedy="add the file, or remove {split!r} from data.splits",
    )
    return Source(
        examples={split: partial(_read_rows, file, split) for split, file in files.items()},
        files={split: (file,) for split, file in files.items()},
        strict=True,
    )


def jsonl_prompts(section: JsonlPrompts) -> Source:
    """Records with a prompt, an answer and lists of image and video paths; the answer is also the demonstration."""
    root = Path(section.folder) / section.image_dir
    if not root.resolve().is_relative_to(Path(section.folder).resolve()):
        raise StudyError([f"data.image_dir: {section.image_dir!r} leads outside of data.folder {section.folder}"])

    def convert(one: JsonRecord) -> RawExample:
        record = one.values
        if section.prompt_key not in one.known:
            known = ", ".join(one.known) or "none"
            hint = nearest(section.prompt_key, one.known)
            raise StudyError([f"{one.where}: no key {section.prompt_key!r} (data.prompt_key); it has {known}{hint}"])
        answer = text_of(record.get(section.answer_key), "answer")
        return RawExample(
            question=_without_marks(record.get(section.prompt_key)),
            answer=answer,
            images=list_of(record.get(section.image_key)),
            videos=_paths(record.get(section.video_key)),
            media_root=root,
            demonstration=answer,
        )

    return _record_source(section, convert)


def conversations(section: Conversations) -> Source:
    """Records of one human and one gpt turn; the gold answer is the reply's `<answer>` block, or the whole reply."""

    def convert(one: JsonRecord) -> RawExample:
        if "conversations" not in one.known:
            raise StudyError([f"{one.where}: no key 'conversations'; it has {', '.join(one.known) or 'none'}"])
        return of_conversation(one.values, Path(section.folder))

    return _record_source(section, convert)


def of_conversation(record: Mapping[str, Any], root: Path | None) -> RawExample:
    """A record of the `conversations` schema; RowRejectedError with the invalid key."""
    question, reply = _two_turns(record.get("conversations"))
    video = record.get("video")
    videos = (video,) if isinstance(video, bytes) else _paths(video)
    meta = record.get("meta")
    return RawExample(
        question=_without_marks(question),
        answer=answer_block(reply),
        images=list_of(record.get("image")),
        videos=videos,
        frames=None if meta is None or not videos else frame_sampling(meta),
        media_root=root,
        demonstration=reply,
        meta={} if record.get("id") is None else {"id": text_of(record["id"], "id")},
    )


def frame_sampling(meta: Any) -> FrameSampling:
    """The `meta` of a video record, of which every key may be missing.

    Errors: RowRejectedError with the invalid key: counts are positive, those of `frame_cnts` together at least
        `min_frames`, and `min_frames` is at most `max_frames`.
    """
    entry = cast("dict[str, Any]", meta)
    if not isinstance(meta, dict) or not set(entry) <= _FRAME_KEYS:
        raise RowRejectedError("meta: expected a mapping of frame_cnts, min_frames, max_frames, dynamic_sample")
    counts = list_of(entry.get("frame_cnts"))
    low, high = entry.get("min_frames"), entry.get("max_frames")
    dynamic = entry.get("dynamic_sample", True)
    if ("frame_cnts" in entry and not counts) or not all(_positive(count) for count in counts):
        raise RowRejectedError("meta.frame_cnts: expected positive whole numbers")
    if not all(limit is None or _positive(limit) for limit in (low, high)) or (low and high and low > high):
        raise RowRejectedError("meta.min_frames: expected positive whole numbers, min_frames at most max_frames")
    if counts and low is not None and sum(counts) < low:
        raise RowRejectedError("meta.frame_cnts: fewer frames together than min_frames")
    if not isinstance(dynamic, bool):
        raise RowRejectedError("meta.dynamic_sample: expected true or false")
    return FrameSampling(frame_cnts=counts, min_frames=low, max_frames=high, dynamic_sample=dynamic)


def read_records(file: Path) -> Iterator[JsonRecord | RowRejectedError]:
    """The objects of a file with one object per line or one list.

    Lines are read one by one, a list is read whole. A line that is not UTF-8 or JSON, or a value that is not an object,
    is yielded as the error that rejects it. Files that end in .gz, .bz2 or .xz are decompressed.

    Errors: StudyError for a list that cannot be parsed.
    """
    records = _parsed_values(file)
    head = list(islice(records, HEAD))
    known = dict.fromkeys(key for record in head if isinstance(record, tuple) for key in record[0])
    for record in chain(head, records):
        if isinstance(record, RowRejectedError):
            yield record
        else:
            yield JsonRecord(values=record[0], known=known, where=record[1])


def with_places(
    records: Iterable[JsonRecord | RowRejectedError],
) -> Iterator[tuple[JsonRecord, str] | RowRejectedError]:
    """Records as `convert_each` takes them."""
    return (record if isinstance(record, RowRejectedError) else (record, record.where) for record in records)


def answer_block(text: str) -> str:
    """The content of the last `<answer>` block, or the whole text if there is none."""
    _, mark, rest = text.rpartition("<answer>")
    return rest.partition("</answer>")[0].strip() if mark else text


def _record_source(section: RecordSection, convert: Callable[[JsonRecord], RawExample]) -> Source:
    files = split_files(
        Path(section.folder),
        {split: section.files.get(split, f"{split}.jsonl") for split in section.splits},
        holds="the splits' files",
        remedy="name the file of {split!r} in data.files, or remove the split",
    )
    return Source(
        examples={split: partial(_convert_file, file, convert) for split, file in files.items()},
        files={split: (file,) for split, file in files.items()},
        images=section.images,
        clips=section.clips,
    )


def _convert_file(file: Path, convert: Callable[[JsonRecord], RawExample]) -> Iterator[RawExample | RowRejectedError]:
    return convert_each(with_places(read_records(file)), convert)


def _parsed_values(file: Path) -> Iterator[tuple[dict[str, Any], str] | RowRejectedError]:
    with cast("BinaryIO", OPENERS.get(file.suffix, _open)(file)) as lines:
        numbered = enumerate(lines, 1)
        blank = 0
        for number, line in numbered:
            if number - blank == 1 and line.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
                yield from _list_items(line + lines.read(), file)
                return
            if not line.strip():
                blank += 1
                continue
            yield _parsed_object(line, f"{file}:{number}")


def _list_items(content: bytes, file: Path) -> Iterator[tuple[dict[str, Any], str] | RowRejectedError]:
    try:
        items = cast("list[Any]", parse_json(content.decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        raise StudyError(
            [f"{file}: invalid JSON ({error}); expected a list of objects, or one object per line"]
        ) from None
    for number, item in enumerate(items, 1):
        yield _checked_object(item, f"{file}: record {number}")


def _parsed_object(line: bytes, where: str) -> tuple[dict[str, Any], str] | RowRejectedError:
    try:
        value = parse_json(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return _located("not UTF-8", where, f"{error.reason} at byte {error.start}")
    except (ValueError, RecursionError) as error:
        return _located("invalid JSON; expected an object", where, str(error))
    return _checked_object(value, where)


def _checked_object(value: Any, where: str) -> tuple[dict[str, Any], str] | RowRejectedError:
    if not isinstance(value, dict):
        return _located("expected an object", where, f"got {str(value)[:60]!r}")
    return cast("dict[str, Any]", value), where


def _located(reason: str, where: str, detail: str) -> RowRejectedError:
    rejected = RowRejectedError(reason)
    rejected.where, rejected.detail = where, detail
    return rejected


def _open(file: Path) -> BinaryIO:
    return file.open("rb")


def _two_turns(turns: Any) -> tuple[str, str]:
    """The texts of the human turn and of the gpt turn."""
    said = [(turn.get("from"), turn.get("value")) for turn in _dicts(turns)]
    if [speaker for speaker, _ in said] != ["human", "gpt"]:
        raise RowRejectedError("conversations: expected one human turn and then one gpt turn")
    return text_of(said[0][1], "question"), text_of(said[1][1], "answer")


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [cast("dict[str, Any]", value) for value in list_of(values) if isinstance(value, dict)]


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _without_marks(text: Any) -> str:
    return _MARKS.sub("", text_of(text, "question")).strip()


def _paths(value: Any) -> tuple[str, ...]:
    return tuple(text_of(path, "video") for path in list_of(value))


def _read_rows(file: Path, split: str) -> Iterator[RawExample | RowRejectedError]:
    with file.open("rb") as lines:
        number = 0
        for number, line in enumerate(lines, 1):
            yield _read_row(line, split, file, number)
    if number == 0:
        raise StudyError([f"{file}: empty; expected one JSON object per line"])


def _read_row(line: bytes, split: str, file: Path, number: int) -> RawExample | RowRejectedError:
    """The row as a raw example, or one error with all problems of its content."""
    where = f"{file}:{number}"
    try:
        row = parse_row(_with_prompt_id(line), where)
    except ValueError as error:
        return RowRejectedError(str(error))
    problems = list(row_problems(row, split))
    problems += [
        f"media: {item.path!r}: a {item.kind}; expected an image; use a source that takes videos"
        for item in row.media
        if item.kind != "image"
    ]
    if problems:
        return RowRejectedError(f"{where}: {'; '.join(problems)}")
    return RawExample(
        question=row.question,
        answer=row.answer,
        choices=row.choices,
        images=tuple(item.path for item in row.media),
        media_root=file.parent,
        demonstration=row.demonstration,
        meta=row.meta,
        prompt_id=row.prompt_id,
        where=where,
    )


def _with_prompt_id(line: bytes) -> bytes:
    """The line with an empty `prompt_id` added if its object has none."""
    try:
        row = json.loads(line)
    except ValueError:
        return line
    return json.dumps({"prompt_id": "", **row}).encode() if isinstance(row, dict) else line
