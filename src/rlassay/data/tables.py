"""Sources that are tables: any dataset in Parquet or JSON files or on the hub, by the names of its columns."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rlassay.config import StudyError
from rlassay.config.data import Aokvqa, Builtin, Columns, Files, Gsm8k, Hub, Summarization, Table, TableSection
from rlassay.config.explain import nearest
from rlassay.data.builtin import digit_photographs, sums
from rlassay.data.drafts import Draft, RowRefusedError, Source, draft_each, list_of, text_of
from rlassay.prompts import demonstrate
from rlassay.records import LETTERS

# MERGED FROM data.tables: Sources that are tables: any dataset in Parquet or JSON files or on the hub, by the
# names of its columns.

Made = Callable[[int, str], Iterator[dict[str, Any]]]
PRESETS = {
    "image_problem_solution": Columns(question="problem", answer="solution", images="image", demonstration="solution")
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of a table."""

    values: Mapping[str, Any]
    """By column; a column that the row leaves out holds None."""
    where: str
    """The table, as a message names it."""

    def __getitem__(self, column: str) -> Any:
        """A column's value; StudyError naming the columns there are, if it is none of them."""
        if column not in self.values:
            known = ", ".join(self.values)
            raise StudyError([f"{self.where}: no column {column!r}; it has {known}{nearest(column, self.values)}"])
        return self.values[column]


def table(section: Table) -> Source:
    """The rows of any table, by a mapping of its columns."""
    if section.columns is not None and section.preset is not None:
        raise StudyError(["data.preset: columns are given too; remove one of the two"])
    columns = section.columns or (PRESETS[section.preset] if section.preset else Columns())
    return table_source(section, partial(_draft, columns=columns))


def table_source(section: TableSection, draft: Callable[[Record], Draft], builtin: Made | None = None) -> Source:
    """The rows of every split, each record put into this project's words by `draft`.

    Args:
        builtin: makes the endless records of a split from a seed, for the origin `builtin`.
    """
    origin = section.origin
    files: dict[str, tuple[Path, ...]] = {}
    if isinstance(origin, Files):
        files = {split: _files(origin, split) for split in section.splits}
    if not isinstance(origin, Builtin):
        records = partial(read_table, origin)
    elif builtin is None:
        raise StudyError(["data.origin: kind builtin, but this source has no rows of its own; expected files or hub"])
    elif None in section.splits.values():
        raise StudyError(["data.splits: the origin builtin never ends; expected a number of rows for each split"])
    else:
        records = partial(_made, builtin, origin.seed)
    root = Path(origin.folder) if isinstance(origin, Files) else None
    drafts = {split: partial(_drafts, partial(records, split), root, draft) for split in section.splits}
    return Source(drafts=drafts, files=files, images=section.images)


def letter_of(answer: Any, choices: tuple[str, ...]) -> str:
    """The gold letter, from a letter, a 0-based number or an option's text; a text that is an option counts as that."""
    letters = LETTERS[: len(choices)]
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(letters):
            raise RowRefusedError("answer: its number is none of the choices")
        return letters[answer]
    text = text_of(answer, "answer")
    return letters[choices.index(text)] if text in choices[: len(letters)] else text


def _drafts(
    records: Callable[[], Iterator[Record]], root: Path | None, draft: Callable[[Record], Draft]
) -> Iterator[Draft | RowRefusedError]:
    return draft_each(records(), lambda record: replace(draft(record), media_root=root))


def _made(builtin: Made, seed: int, split: str) -> Iterator[Record]:
    return (Record(values=values, where="data.origin (builtin)") for values in builtin(seed, split))


def read_table(origin: Files | Hub, split: str) -> Iterator[Record]:
    """The records of a split, streamed; images come encoded."""
    import datasets
    from datasets.exceptions import DatasetsError

    where = f"data.origin ({_place(origin)}), split {split!r}"
    try:
        if isinstance(origin, Files):
            files = [str(file) for file in _files(origin, split)]
            rows = datasets.load_dataset(origin.kind, data_files={split: files}, split=split, streaming=True)
        else:
            its, name = origin.names.get(split, split), origin.name
            rows = datasets.load_dataset(name, origin.config, revision=origin.revision, split=its, streaming=True)
        for values in rows.decode(False):
            yield Record(values=values, where=where)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if isinstance(error, StudyError):
            raise
        raise StudyError([f"{where}: cannot be read: {' '.join(str(error).split())[:300]}"]) from error


def _files(origin: Files, split: str) -> tuple[Path, ...]:
    folder = Path(origin.folder)
    pattern = origin.files.get(split, f"{split}*.{origin.kind}*")
    try:
        found = tuple(sorted(file for file in folder.glob(pattern) if file.is_file()))
    except (NotImplementedError, ValueError):
        found = ()
    if not found:
        raise StudyError([f"data.origin: no file {pattern!r} in {folder}, for the split {split!r}; add it to files"])
    return found


def _place(origin: Files | Hub) -> str:
    return origin.folder if isinstance(origin, Files) else f"{origin.name} at {origin.revision}"


def _draft(record: Record, columns: Columns) -> Draft:
    choices = tuple(
        text_of(choice, "choices") for choice in list_of(record[columns.choices] if columns.choices else ())
    )
    answer = letter_of(record[columns.answer], choices) if choices else text_of(record[columns.answer], "answer")
    demonstration = record[columns.demonstration] if columns.demonstration else None
    return Draft(
        question=text_of(record[columns.question], "question"),
        answer=answer_block(answer),
        choices=choices,
        images=list_of(record[columns.images] if columns.images else ()),
        demonstration=None if demonstration is None else text_of(demonstration, "demonstration"),
        meta={name: _meta(record[name], name) for name in columns.meta if record[name] is not None},
    )


def answer_block(text: str) -> str:
    """What stands in the last `<answer>` block, or the whole text where there is none."""
    _, mark, rest = text.rpartition("<answer>")
    return rest.partition("</answer>")[0].strip() if mark else text


def _meta(value: Any, name: str) -> str | int | float | bool:
    if not isinstance(value, str | int | float | bool):
        raise RowRefusedError(f"{name}: it is neither a text nor a number")
    return value


# MERGED FROM data.schemas: Tables whose columns are known: A-OKVQA, GSM8K, documents with summaries.

_CALCULATION = re.compile(r"<<[^<>]*>>")


def aokvqa(section: Aokvqa) -> Source:
    """Questions about photographs with four options; the first rationale is the demonstration's thought.

    Source: D. Schwenk et al., "A-OKVQA: A Benchmark for Visual Question Answering using World Knowledge" (2022).
    """
    wanted = None if section.question_ids is None else _question_ids(Path(section.question_ids))

    def draft(record: Record) -> Draft:
        name = text_of(record["question_id"], "question_id")
        if wanted is not None and name not in wanted:
            raise RowRefusedError("question_id: not in data.question_ids")
        choices = tuple(text_of(choice, "choices") for choice in list_of(record["choices"]))
        letter = letter_of(record["correct_choice_idx"], choices)
        rationales = [text_of(rationale, "rationales") for rationale in list_of(record["rationales"])]
        return Draft(
            question=text_of(record["question"], "question"),
            answer=letter,
            choices=choices,
            images=(record["image"],),
            jpeg_name=re.sub(r"[^A-Za-z0-9-]", "-", name),
            demonstration=demonstrate(letter, rationales[0] if rationales else None),
            meta={"question_id": name},
        )

    return table_source(section, draft, digit_photographs)


def gsm8k(section: Gsm8k) -> Source:
    """Word problems; the working, if any, without its `<<3*4=12>>` marks, is the demonstration's thought.

    Source: K. Cobbe et al., "Training Verifiers to Solve Math Word Problems" (2021).
    """

    def draft(record: Record) -> Draft:
        working, mark, final = text_of(record["answer"], "answer").rpartition("####")
        if not mark:
            raise RowRefusedError("answer: no #### before the final number")
        answer = final.strip().replace(",", "")
        demonstration = demonstrate(answer, _CALCULATION.sub("", working).strip() or None)
        return Draft(question=text_of(record["question"], "question"), answer=answer, demonstration=demonstration)

    return table_source(section, draft, sums)


def summarization(section: Summarization) -> Source:
    """Documents with their summaries."""

    def draft(record: Record) -> Draft:
        summary = text_of(record["summary"], "summary")
        return Draft(question=text_of(record["document"], "document"), answer=summary, demonstration=summary)

    return table_source(section, draft)


def _question_ids(file: Path) -> set[str]:
    try:
        ids = set(file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError([f"data.question_ids: {file} cannot be read ({error}); expected one id per line"]) from None
    if not ids:
        raise StudyError([f"data.question_ids: {file} is empty; expected one question id per line"])
    return ids
