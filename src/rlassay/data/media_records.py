"""Sources that are JSON records with media by path: prompts with an answer, and conversations of two turns."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rlassay.config import StudyError
from rlassay.config.data import Conversations, Jsonl, JsonlPrompts, RecordSection
from rlassay.config.explain import nearest
from rlassay.data.drafts import Draft, RowRefusedError, Source, draft_each, list_of, split_files, text_of
from rlassay.data.intake import row_problems
from rlassay.data.tables import answer_block
from rlassay.records import FrameSampling, parse_row

# MERGED FROM data.media_records: Sources that are JSON records with media by path: prompts with an answer, and
# conversations of two turns.

_MARKS = re.compile(r"<(?:image|video)>\n?")
Located = tuple[dict[str, Any], str]
"""A record, and the `file:line` where it stands."""
_FRAME_KEYS = {"frame_cnts", "min_frames", "max_frames", "dynamic_sample"}


def jsonl_prompts(section: JsonlPrompts) -> Source:
    """Records with a prompt, an answer and lists of image and video paths; the answer is what `sft` imitates."""
    root = Path(section.folder) / section.image_dir
    if not root.resolve().is_relative_to(Path(section.folder).resolve()):
        raise StudyError([f"data.image_dir: {section.image_dir!r} leads outside of data.folder {section.folder}"])

    def draft(located: Located) -> Draft:
        record, where = located
        if section.prompt_key not in record:
            known = ", ".join(record) or "none"
            hint = nearest(section.prompt_key, record)
            raise StudyError([f"{where}: no key {section.prompt_key!r} (data.prompt_key); it has {known}{hint}"])
        answer = text_of(record.get(section.answer_key), "answer")
        return Draft(
            question=_without_marks(record[section.prompt_key]),
            answer=answer,
            images=list_of(record.get(section.image_key)),
            videos=_paths(record.get(section.video_key)),
            media_root=root,
            demonstration=answer,
        )

    return _record_source(section, draft)


def conversations(section: Conversations) -> Source:
    """One human and one gpt turn each; the gold answer is the reply's `<answer>` block, or the whole reply."""
    root = Path(section.folder)

    def draft(located: Located) -> Draft:
        record, where = located
        if "conversations" not in record:
            raise StudyError([f"{where}: no key 'conversations'; it has {', '.join(record) or 'none'}"])
        question, reply = _two_turns(record["conversations"])
        videos = _paths(record.get("video"))
        meta = record.get("meta")
        return Draft(
            question=_without_marks(question),
            answer=answer_block(reply),
            images=list_of(record.get("image")),
            videos=videos,
            frames=None if meta is None or not videos else frame_sampling(meta),
            media_root=root,
            demonstration=reply,
            meta={} if record.get("id") is None else {"id": text_of(record["id"], "id")},
        )

    return _record_source(section, draft)


def frame_sampling(meta: Any) -> FrameSampling:
    """The `meta` of a video record: positive frame counts whose sum holds `min_frames`, and min <= max.

    Errors: RowRefusedError naming the key that does not fit.
    """
    if not isinstance(meta, dict) or not set(meta) <= _FRAME_KEYS:
        raise RowRefusedError("meta: expected a mapping of frame_cnts, min_frames, max_frames, dynamic_sample")
    counts: tuple[Any, ...] = list_of(meta.get("frame_cnts"))
    low: Any = meta.get("min_frames")
    high: Any = meta.get("max_frames")
    dynamic = meta.get("dynamic_sample", True)
    if not counts or not all(_positive(count) for count in counts):
        raise RowRefusedError("meta.frame_cnts: expected positive whole numbers")
    if not _positive(low) or not _positive(high) or low > high:
        raise RowRefusedError("meta.min_frames: expected positive whole numbers, min_frames at most max_frames")
    if sum(counts) < low:
        raise RowRefusedError("meta.frame_cnts: fewer frames together than min_frames")
    if not isinstance(dynamic, bool):
        raise RowRefusedError("meta.dynamic_sample: expected true or false")
    return FrameSampling(frame_cnts=counts, min_frames=low, max_frames=high, dynamic_sample=dynamic)


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _without_marks(text: Any) -> str:
    return _MARKS.sub("", text_of(text, "question")).strip()


def _paths(value: Any) -> tuple[str, ...]:
    return tuple(text_of(path, "video") for path in list_of(value))


def _two_turns(turns: Any) -> tuple[str, str]:
    said = [(turn.get("from"), turn.get("value")) for turn in list_of(turns) if isinstance(turn, dict)]
    if [speaker for speaker, _ in said] != ["human", "gpt"]:
        raise RowRefusedError("conversations: expected one human turn and then one gpt turn")
    return text_of(said[0][1], "question"), text_of(said[1][1], "answer")


def _record_source(section: RecordSection, draft: Callable[[Located], Draft]) -> Source:
    files = split_files(
        Path(section.folder),
        {split: section.files.get(split, f"{split}.jsonl") for split in section.splits},
        holds="the splits' files",
        remedy="name the file of {split!r} in data.files, or remove the split",
    )
    return Source(
        drafts={split: partial(_drafts, file, draft) for split, file in files.items()},
        files={split: (file,) for split, file in files.items()},
        images=section.images,
    )


def _drafts(file: Path, draft: Callable[[Located], Draft]) -> Iterator[Draft | RowRefusedError]:
    return draft_each(read_records(file), draft)


def read_records(file: Path) -> Iterator[Located]:
    """Each object of a `.jsonl` file, read line by line, or of a `.json` list, read whole; and where it stands.

    Errors: StudyError naming file and line for bad UTF-8, bad JSON and what is no object.
    """
    if file.suffix == ".json":
        records = _parse(file.read_bytes(), str(file))
        if not isinstance(records, list):
            raise StudyError([f"{file}: expected a list of objects; or name it .jsonl if it has one object per line"])
        numbered = ((record, f"{file}: record {number}") for number, record in enumerate(records, 1))
    else:
        numbered = _lines(file)
    for record, where in numbered:
        if not isinstance(record, dict):
            raise StudyError([f"{where}: expected an object, got {str(record)[:60]!r}"])
        yield record, where


def _lines(file: Path) -> Iterator[tuple[Any, str]]:
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
        raise StudyError([f"{where}: no JSON ({error}); expected an object"]) from None


# MERGED FROM data.jsonl: The source for rows of one's own: `<folder>/<split>.jsonl`, each line a `PromptRow`,
# and the images they name.


def jsonl(section: Jsonl) -> Source:
    """The rows of every split, strictly: what is wrong with one is an error that names file and line.

    A `prompt_id` may be left out, and is then the content's digest. Repeated prompts and training rows that an
    evaluation split has too are left out and counted, as with every source.

    Errors: StudyError if the folder or a file is missing.
    """
    files = split_files(
        Path(section.folder),
        {split: f"{split}.jsonl" for split in section.splits},
        holds="<split>.jsonl files",
        remedy="add the file, or remove {split!r} from data.splits",
    )
    return Source(
        drafts={split: partial(_line_drafts, file, split) for split, file in files.items()},
        files={split: (file,) for split, file in files.items()},
        strict=True,
    )


def _line_drafts(file: Path, split: str) -> Iterator[Draft | RowRefusedError]:
    with file.open("rb") as lines:
        number = 0
        for number, line in enumerate(lines, 1):
            yield _draft(line, split, file, number)
    if number == 0:
        raise StudyError([f"{file}: empty; expected one JSON object per line"])


def _draft(line: bytes, split: str, file: Path, number: int) -> Draft | RowRefusedError:
    """The row as a draft, or everything that is wrong with what it says itself."""
    where = f"{file}:{number}"
    try:
        row = parse_row(_with_prompt_id(line), where)
    except ValueError as error:
        return RowRefusedError(str(error))
    problems = list(row_problems(row, split))
    problems += [
        f"media: {item.path!r}: a {item.kind}; expected an image; use a source that takes videos"
        for item in row.media
        if item.kind != "image"
    ]
    if problems:
        return RowRefusedError(f"{where}: {'; '.join(problems)}")
    return Draft(
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
    """The line, with an empty `prompt_id` where an object has none."""
    try:
        row = json.loads(line)
    except ValueError:
        return line
    return json.dumps({"prompt_id": "", **row}).encode() if isinstance(row, dict) else line
