"""Tables as sources, by a mapping of columns or a known schema.

They are Parquet or JSON files, or datasets on the hub.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from rlassay.config import StudyError
from rlassay.config.data import (
    AnswerIs,
    Aokvqa,
    Builtin,
    Columns,
    Files,
    Gsm8k,
    Hub,
    Summarization,
    Table,
    TableSection,
)
from rlassay.data.builtin import generate_aokvqa_rows, generate_gsm8k_rows
from rlassay.data.json_records import answer_block, read_records
from rlassay.data.raw_examples import NOT_WANTED, RawExample, RowRejectedError, Source, convert_each
from rlassay.data.values import arrow_rows, is_nan, list_of, parquet_batches, text_of, whole_number
from rlassay.names import nearest
from rlassay.prompts import demonstrate
from rlassay.records import LETTERS

BATCH = 64
"""Rows of a table that are decoded at a time; they may hold images."""
GenerateRows = Callable[[int, str], Iterator[dict[str, Any]]]
"""`generate(seed, split)`: endless built-in records of a split."""
PRESETS = {
    "image_problem_solution": Columns(question="problem", answer="solution", images="image", demonstration="solution")
}
_CALCULATION = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row of a table."""

    values: Mapping[str, Any]
    """Column -> value; None for a column that the row leaves out."""
    where: str
    """Name of the table in error messages."""
    place: str
    """The row's own place, such as `train.parquet: row 3`."""

    def __getitem__(self, column: str) -> Any:
        """A column's value; StudyError with the existing columns if there is no such column."""
        if column not in self.values:
            known = ", ".join(self.values)
            raise StudyError([f"{self.where}: no column {column!r}; it has {known}{nearest(column, self.values)}"])
        return self.values[column]


def table(section: Table) -> Source:
    """The rows of any table, by a mapping of its columns."""
    if section.columns is not None and section.preset is not None:
        raise StudyError(["data.preset: data.columns is set too; remove one of the two"])
    columns = section.columns or (PRESETS[section.preset] if section.preset else Columns())
    return table_source(section, partial(_convert, columns=columns))


def aokvqa(section: Aokvqa) -> Source:
    """Questions about photographs with four options; the first rationale is the demonstration's thought.

    Source: D. Schwenk et al., "A-OKVQA: A Benchmark for Visual Question Answering using World Knowledge" (2022).
    """
    wanted = None if section.question_ids is None else _question_ids(Path(section.question_ids))

    def convert(row: TableRow) -> RawExample:
        name = text_of(row["question_id"], "question_id")
        if wanted is not None and name not in wanted:
            raise RowRejectedError(NOT_WANTED)
        choices = tuple(text_of(choice, "choices") for choice in list_of(row["choices"]))
        letter = gold_letter(row["correct_choice_idx"], choices, column="correct_choice_idx", answer_is="index")
        rationales = [text_of(rationale, "rationales") for rationale in list_of(row["rationales"])]
        return RawExample(
            question=text_of(row["question"], "question"),
            answer=letter,
            choices=choices,
            images=(row["image"],),
            jpeg_name=re.sub(r"[^A-Za-z0-9-]", "-", name),
            demonstration=demonstrate(letter, rationales[0] if rationales else None),
            meta={"question_id": name},
        )

    return table_source(section, convert, generate_aokvqa_rows)


def gsm8k(section: Gsm8k) -> Source:
    """Word problems; the working, without its `<<3*4=12>>` marks, is the demonstration's thought.

    Source: K. Cobbe et al., "Training Verifiers to Solve Math Word Problems" (2021).
    """

    def convert(row: TableRow) -> RawExample:
        working, mark, final = text_of(row["answer"], "answer").rpartition("####")
        if not mark:
            raise RowRejectedError("answer: no #### before the final number")
        answer = final.strip().replace(",", "")
        demonstration = demonstrate(answer, _CALCULATION.sub("", working).strip() or None)
        return RawExample(question=text_of(row["question"], "question"), answer=answer, demonstration=demonstration)

    return table_source(section, convert, generate_gsm8k_rows)


def summarization(section: Summarization) -> Source:
    """Documents with their summaries."""

    def convert(row: TableRow) -> RawExample:
        summary = text_of(row[section.summary], section.summary)
        return RawExample(
            question=text_of(row[section.document], section.document), answer=summary, demonstration=summary
        )

    return table_source(section, convert)


def table_source(
    section: TableSection, convert: Callable[[TableRow], RawExample], generate: GenerateRows | None = None
) -> Source:
    """A source that converts each row of a table with `convert`.

    Args:
        section: a `data` section with an `origin`.
        convert: from a table row to a raw example.
        generate: generates the rows for the origin `builtin`; None if the source has no built-in rows.
    """
    origin = section.origin
    files: dict[str, tuple[Path, ...]] = {}
    if isinstance(origin, Files):
        files = {split: _files(origin, split) for split in section.splits}
    if not isinstance(origin, Builtin):
        read = partial(read_table, origin)
    elif generate is None:
        raise StudyError(["data.origin: kind builtin, but this source has no built-in rows; expected files or hub"])
    elif None in section.splits.values():
        raise StudyError(["data.splits: the origin builtin never ends; expected a number of rows for each split"])
    else:
        read = partial(_builtin_rows, generate, origin.seed)
    root = Path(origin.folder) if isinstance(origin, Files) else None
    examples = {split: partial(_convert_rows, partial(read, split), root, convert) for split in section.splits}
    return Source(examples=examples, files=files, images=section.images, generated=isinstance(origin, Builtin))


def read_table(origin: Files | Hub, split: str) -> Iterator[TableRow | RowRejectedError]:
    """The rows of a split, streamed, with encoded images; a JSON line without an object is yielded as its error.

    Errors: StudyError if the files or the hub dataset cannot be read.
    """
    from datasets.exceptions import DatasetsError  # pyright: ignore[reportMissingTypeStubs]

    name = origin.folder if isinstance(origin, Files) else f"{origin.name} at {origin.revision}"
    where = f"data.origin ({name}), split {split!r}"
    read = _read_hub(origin, split) if isinstance(origin, Hub) else _read_files(origin, split)
    try:
        for row in read:
            if isinstance(row, RowRejectedError):
                yield row
            else:
                values, place = row
                yield TableRow(values=values, where=where, place=place)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if isinstance(error, StudyError):
            raise
        raise StudyError([f"{where}: cannot be read: {' '.join(str(error).split())[:300]}"]) from error


def gold_letter(answer: Any, choices: tuple[str, ...], *, column: str, answer_is: AnswerIs | None = None) -> str:
    """The gold letter of a row with choices.

    Args:
        answer: the value of the answer column.
        choices: the option texts.
        column: the column's name, for messages.
        answer_is: whether `answer` is an option's letter, text or 0-based number. None decides row by row: a text
            equal to an option means that option, another text is a letter, and a number is an index unless only an
            option's text fits.

    Errors: RowRejectedError if it is no option; StudyError for a number that is the index of one option and the text
        of another.
    """
    letters = LETTERS[: len(choices)]
    index = whole_number(answer)
    if index is None and answer_is == "index":
        text = text_of(answer, column)
        index = int(text) if text.isdecimal() else -1
    by_index = letters[index] if index is not None and 0 <= index < len(letters) else None
    text = text_of(answer, "answer")
    by_text = letters[choices.index(text)] if text in choices[: len(letters)] else None
    if answer_is == "index" or (answer_is is None and index is not None):
        if answer_is is None and by_index and by_text and by_index != by_text:
            raise StudyError([_ambiguous(column, text, choices)])
        letter = by_index or (None if answer_is else by_text)
        if letter is None:
            raise RowRejectedError("answer: its number is none of the choices")
        return letter
    return text if answer_is == "letter" or by_text is None else by_text


def _ambiguous(column: str, text: str, choices: tuple[str, ...]) -> str:
    return (
        f"data.columns.answer: the column {column!r} holds the number {text}, which is the index of the option "
        f"{choices[int(text)]!r} and also the text of option {choices.index(text)}, counted from 0; "
        "set data.columns.answer_is to 'index' or to 'text'"
    )


def _read_files(origin: Files, split: str) -> Iterator[tuple[Mapping[str, Any], str] | RowRejectedError]:
    for file in _files(origin, split):
        if origin.kind == "json":
            for record in read_records(file):
                if isinstance(record, RowRejectedError):
                    yield record
                else:
                    yield dict.fromkeys(record.known) | dict(record.values), record.where
        else:
            yield from _numbered(parquet_batches(file, BATCH), str(file))


def _read_hub(origin: Hub, split: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    from datasets import load_dataset  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    load = cast("Callable[..., Any]", load_dataset)
    hub_split = origin.names.get(split, split)
    dataset = load(origin.name, origin.config, revision=origin.revision, split=hub_split, streaming=True)
    batches = dataset.decode(False).with_format("arrow").iter(batch_size=BATCH)
    return _numbered(batches, f"{origin.name}, split {hub_split}")


def _numbered(batches: Iterable[Any], name: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    rows = (row for batch in batches for row in arrow_rows(batch))
    return ((row, f"{name}: row {number}") for number, row in enumerate(rows, 1))


def _convert_rows(
    read: Callable[[], Iterator[TableRow | RowRejectedError]],
    root: Path | None,
    convert: Callable[[TableRow], RawExample],
) -> Iterator[RawExample | RowRejectedError]:
    rows = (row if isinstance(row, RowRejectedError) else (row, row.place) for row in read())
    return convert_each(rows, lambda row: replace(convert(row), media_root=root))


def _convert(row: TableRow, columns: Columns) -> RawExample:
    choices = tuple(text_of(choice, "choices") for choice in list_of(row[columns.choices] if columns.choices else ()))
    answer = row[columns.answer]
    if choices:
        answer = gold_letter(answer, choices, column=columns.answer, answer_is=columns.answer_is)
    else:
        answer = text_of(answer, "answer")
    demonstration = row[columns.demonstration] if columns.demonstration else None
    return RawExample(
        question=text_of(row[columns.question], "question"),
        answer=answer_block(answer),
        choices=choices,
        images=list_of(row[columns.images] if columns.images else ()),
        demonstration=None if _is_missing(demonstration) else text_of(demonstration, "demonstration"),
        meta={name: _meta_value(row[name], name) for name in columns.meta if not _is_missing(row[name])},
    )


def _builtin_rows(generate: GenerateRows, seed: int, split: str) -> Iterator[TableRow]:
    return (TableRow(values=values, where="data.origin (builtin)", place="") for values in generate(seed, split))


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


def _meta_value(value: Any, name: str) -> str | int | float | bool:
    """A text, number or truth value; dates and decimals become their text."""
    if isinstance(value, bool | int):
        return value
    text = text_of(value, name)
    return float(value) if isinstance(value, float) else text


def _is_missing(value: Any) -> bool:
    return value is None or is_nan(value)


def _question_ids(file: Path) -> set[str]:
    try:
        ids = set(file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError([f"data.question_ids: {file} cannot be read ({error}); expected one id per line"]) from None
    if not ids:
        raise StudyError([f"data.question_ids: {file} is empty; expected one question id per line"])
    return ids
