"""Sources in JSON files with media by path: rows in this project's format, prompts with answers, conversations."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

from rlassay.config import StudyError
from rlassay.config.data import Conversations, Jsonl, JsonlPrompts, RecordSection
from rlassay.config.explain import nearest
from rlassay.data.raw_examples import (
    RawExample,
    RowRejectedError,
    Source,
    convert_each,
    list_of,
    split_files,
    text_of,
)
from rlassay.data.row_checks import row_problems
from rlassay.data.tables import answer_block
from rlassay.records import FrameSampling, parse_row

LocatedRecord = tuple[dict[str, Any], str]
"""A record, and its `file:line`."""
_MARKS = re.compile(r"<(?:image|video)>\n?")
_FRAME_KEYS = {"frame_cnts", "min_frames", "max_frames", "dynamic_sample"}


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

    def convert(located: LocatedRecord) -> RawExample:
        record, where = located
        if section.prompt_key not in record:
            known = ", ".join(record) or "none"
            hint = nearest(section.prompt_key, record)
            raise StudyError([f"{where}: no key {section.prompt_key!r} (data.prompt_key); it has {known}{hint}"])
        answer = text_of(record.get(section.answer_key), "answer")
        return RawExample(
            question=_without_marks(record[section.prompt_key]),
            answer=answer,
            images=list_of(record.get(section.image_key)),
            videos=_paths(record.get(section.video_key)),
            media_root=root,
            demonstration=answer,
        )

    return _record_source(section, convert)


def conversations(section: Conversations) -> Source:
    """Records of one human and one gpt turn; the gold answer is the reply's `<answer>` block, or the whole reply."""
    root = Path(section.folder)

    def convert(located: LocatedRecord) -> RawExample:
        record, where = located
        if "conversations" not in record:
            raise StudyError([f"{where}: no key 'conversations'; it has {', '.join(record) or 'none'}"])
        question, reply = _two_turns(record["conversations"])
        videos = _paths(record.get("video"))
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

    return _record_source(section, convert)


def frame_sampling(meta: Any) -> FrameSampling:
    """The `meta` of a video record: positive frame counts with a sum of at least `min_frames`, and min <= max.

    Errors: RowRejectedError with the invalid key.
    """
    entry = cast("dict[str, Any]", meta)
    if not isinstance(meta, dict) or not set(entry) <= _FRAME_KEYS:
        raise RowRejectedError("meta: expected a mapping of frame_cnts, min_frames, max_frames, dynamic_sample")
    counts = list_of(entry.get("frame_cnts"))
    low, high = entry.get("min_frames"), entry.get("max_frames")
    dynamic = entry.get("dynamic_sample", True)
    if not counts or not all(_positive(count) for count in counts):
        raise RowRejectedError("meta.frame_cnts: expected positive whole numbers")
    if low is None or high is None or not _positive(low) or not _positive(high) or low > high:
        raise RowRejectedError("meta.min_frames: expected positive whole numbers, min_frames at most max_frames")
    if sum(counts) < low:
        raise RowRejectedError("meta.frame_cnts: fewer frames together than min_frames")
    if not isinstance(dynamic, bool):
        raise RowRejectedError("meta.dynamic_sample: expected true or false")
    return FrameSampling(frame_cnts=counts, min_frames=low, max_frames=high, dynamic_sample=dynamic)


def read_records(file: Path) -> Iterator[LocatedRecord]:
    """The objects of a `.jsonl` file, read line by line, or of a `.json` list, read whole, each with its location.

    Errors: StudyError with file and line for invalid UTF-8, invalid JSON, and JSON that is not an object.
    """
    if file.suffix == ".json":
        records = _parse(file.read_bytes(), str(file))
        if not isinstance(records, list):
            raise StudyError([f"{file}: expected a list of objects; or name it .jsonl if it has one object per line"])
        numbered = ((record, f"{file}: record {number}") for number, record in enumerate(cast("list[Any]", records), 1))
    else:
        numbered = _parsed_lines(file)
    for record, where in numbered:
        if not isinstance(record, dict):
            raise StudyError([f"{where}: expected an object, got {str(record)[:60]!r}"])
        yield cast("dict[str, Any]", record), where


def _record_source(section: RecordSection, convert: Callable[[LocatedRecord], RawExample]) -> Source:
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
    )


def _convert_file(
    file: Path, convert: Callable[[LocatedRecord], RawExample]
) -> Iterator[RawExample | RowRejectedError]:
    return convert_each(read_records(file), convert)


def _parsed_lines(file: Path) -> Iterator[tuple[Any, str]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _parse(line, f"{file}:{number}"), f"{file}:{number}"


def _parse(content: bytes, where: str) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise StudyError([f"{where}: not UTF-8 ({error.reason} at byte {error.start})"]) from None
    except (ValueError, RecursionError) as error:
        raise StudyError([f"{where}: invalid JSON ({error}); expected an object"]) from None


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
