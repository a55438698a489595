"""The source for rows of one's own: `<folder>/<split>.jsonl`, each line a `PromptRow`, and the images they name."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rlassay.config import StudyError
from rlassay.config.data import Jsonl
from rlassay.data.drafts import Draft, RowRefusedError, Source, split_files
from rlassay.data.row_checks import row_problems
from rlassay.records import parse_row


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
        drafts={split: partial(_drafts, file, split) for split, file in files.items()},
        files={split: (file,) for split, file in files.items()},
        strict=True,
    )


def _drafts(file: Path, split: str) -> Iterator[Draft | RowRefusedError]:
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
