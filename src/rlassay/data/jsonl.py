"""The source for rows of one's own: `<folder>/<split>.jsonl`, each line a `PromptRow`, and the images they name."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rlassay.bar import progress_bar
from rlassay.config import StudyError
from rlassay.config.data import Jsonl
from rlassay.data.identity import content_id
from rlassay.data.images import Images, image_suffix
from rlassay.data.row_checks import row_problems
from rlassay.records import Media, PromptRow, parse_row

SHOWN_PROBLEMS = 20


@dataclass(kw_only=True)
class Intake:
    """What reading the files has found so far."""

    folder: Path
    """Root that image paths may not leave."""
    images: Images
    """Receives the images."""
    problems: list[str] = field(default_factory=list)
    """One sentence each, beginning with `file:line`."""
    seen: dict[str, str] = field(default_factory=dict)
    """Where each prompt_id and each content stood first."""


def jsonl(section: Jsonl, images: Images) -> dict[str, list[PromptRow]]:
    """The rows of every split, checked one by one; a `prompt_id` may be left out, and is then the content's digest.

    Errors: StudyError listing what is wrong, each with file and line, what was got, what is expected and how to mend
        it; nothing is written to the split files then.
    """
    folder = Path(section.folder)
    if not folder.is_dir():
        raise StudyError([f"data.folder: {folder} is no folder; expected one that holds <split>.jsonl files"])
    if folder.resolve().is_relative_to(images.data.resolve()):
        raise StudyError([f"data.folder: {folder} lies in the study's own data folder; move your files elsewhere"])
    intake = Intake(folder=folder, images=images)
    rows = {split: _read_split(split, limit, intake) for split, limit in section.splits.items()}
    if intake.problems:
        more = len(intake.problems) - SHOWN_PROBLEMS
        raise StudyError(intake.problems[:SHOWN_PROBLEMS] + ([f"... and {more} more"] if more > 0 else []))
    return rows


def _read_split(split: str, limit: int | None, intake: Intake) -> list[PromptRow]:
    path = intake.folder / f"{split}.jsonl"
    if not path.is_file():
        intake.problems.append(f"{path}: missing; add the file, or remove {split!r} from data.splits")
        return []
    with path.open("rb") as lines, progress_bar(split, None, "row") as bar:
        rows: list[PromptRow] = []
        number = 0
        for number, line in enumerate(lines, 1):
            bar.update()
            if limit is not None and number > limit:
                return rows
            row = _read_row(line, split, f"{path}:{number}", intake)
            if row is not None:
                rows.append(row)
    if number == 0:
        intake.problems.append(f"{path}: empty; expected one JSON object per line")
    elif limit is not None and number < limit:
        intake.problems.append(
            f"{path}: has {number} rows, but data.splits.{split} asks for {limit}; lower it, or null"
        )
    return rows


def _read_row(line: bytes, split: str, where: str, intake: Intake) -> PromptRow | None:
    """The complete row; None after adding its problems."""
    try:
        row = parse_row(_with_prompt_id(line), where)
    except ValueError as error:
        intake.problems.append(str(error))
        return None
    problems = list(row_problems(row, split))
    media = [_take_image(item, problems, intake) for item in row.media]
    if not problems:
        row = row.model_copy(update={"media": tuple(item for item in media if item is not None)})
        row = row.model_copy(update={"prompt_id": row.prompt_id or content_id(row)})
        problems += _repetitions(row, where, intake)
    intake.problems += [f"{where}: {problem}" for problem in problems]
    return None if problems else row


def _with_prompt_id(line: bytes) -> bytes:
    """The line, with an empty `prompt_id` where an object has none."""
    try:
        row = json.loads(line)
    except ValueError:
        return line
    return json.dumps({"prompt_id": "", **row}).encode() if isinstance(row, dict) else line


def _take_image(item: Media, problems: list[str], intake: Intake) -> Media | None:
    if item.kind != "image":
        problems.append(f"media: {item.path!r}: a {item.kind}; expected an image; use a source that takes videos")
        return None
    try:
        content = _read_image(intake.folder, item.path)
        return intake.images.add(content, image_suffix(content))
    except ValueError as error:
        problems.append(f"media: {item.path!r}: {error}; replace the image, or remove the row")
        return None


def _read_image(folder: Path, path: str) -> bytes:
    file = (folder / path).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ValueError(f"leads outside of data.folder; expected a path below {folder}")
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"no such image in {folder} ({error.strerror}); expected a file") from None


def _repetitions(row: PromptRow, where: str, intake: Intake) -> Iterator[str]:
    first = intake.seen.setdefault(f"id {row.prompt_id}", where)
    if first != where:
        yield f"prompt_id: {row.prompt_id!r} stands at {first} too; give each row its own, or leave it out"
        return
    first = intake.seen.setdefault(f"content {content_id(row)}", where)
    if first != where:
        yield f"the same prompt (question, choices and images) stands at {first}; remove one of the two"
