"""Sources that are tables, in Parquet or JSON files or on the hub: any columns by a mapping, or a known schema."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from rlassay.config import StudyError
from rlassay.config.data import Aokvqa, Builtin, Columns, Files, Gsm8k, Hub, Summarization, Table, TableSection
from rlassay.config.explain import nearest
from rlassay.data.builtin import generate_aokvqa_rows, generate_gsm8k_rows
from rlassay.data.raw_examples import RawExample, RowRejectedError, Source, convert_each, list_of, text_of
from rlassay.prompts import demonstrate
from rlassay.records import LETTERS

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
    """The table's name in error messages."""

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
            raise RowRejectedError("question_id: not in data.question_ids")
        choices = tuple(text_of(choice, "choices") for choice in list_of(row["choices"]))
        letter = gold_letter(row["correct_choice_idx"], choices)
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
        summary = text_of(row["summary"], "summary")
        return RawExample(question=text_of(row["document"], "document"), answer=summary, demonstration=summary)

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
    return Source(examples=examples, files=files, images=section.images)


def read_table(origin: Files | Hub, split: str) -> Iterator[TableRow]:
    """The rows of a split, streamed, with encoded images.

    Errors: StudyError if the files or the hub dataset cannot be read.
    """
    from datasets import load_dataset  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
    from datasets.exceptions import DatasetsError  # pyright: ignore[reportMissingTypeStubs]

    load = cast("Callable[..., Any]", load_dataset)
    name = origin.folder if isinstance(origin, Files) else f"{origin.name} at {origin.revision}"
    where = f"data.origin ({name}), split {split!r}"
    try:
        if isinstance(origin, Files):
            files = [str(file) for file in _files(origin, split)]
            dataset = load(origin.kind, data_files={split: files}, split=split, streaming=True)
        else:
            hub_split = origin.names.get(split, split)
            dataset = load(origin.name, origin.config, revision=origin.revision, split=hub_split, streaming=True)
        rows: Iterable[dict[str, Any]] = dataset.decode(False)
        for values in rows:
            yield TableRow(values=values, where=where)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if isinstance(error, StudyError):
            raise
        raise StudyError([f"{where}: cannot be read: {' '.join(str(error).split())[:300]}"]) from error


def gold_letter(answer: Any, choices: tuple[str, ...]) -> str:
    """The gold letter from an option's text, a letter or a 0-based number; a text equal to an option means that one."""
    letters = LETTERS[: len(choices)]
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(letters):
            raise RowRejectedError("answer: its number is none of the choices")
        return letters[answer]
    text = text_of(answer, "answer")
    return letters[choices.index(text)] if text in choices[: len(letters)] else text


def answer_block(text: str) -> str:
    """The content of the last `<answer>` block, or the whole text if there is none."""
    _, mark, rest = text.rpartition("<answer>")
    return rest.partition("</answer>")[0].strip() if mark else text


def _convert_rows(
    read: Callable[[], Iterator[TableRow]], root: Path | None, convert: Callable[[TableRow], RawExample]
) -> Iterator[RawExample | RowRejectedError]:
    return convert_each(read(), lambda row: replace(convert(row), media_root=root))


def _convert(row: TableRow, columns: Columns) -> RawExample:
    choices = tuple(text_of(choice, "choices") for choice in list_of(row[columns.choices] if columns.choices else ()))
    answer = gold_letter(row[columns.answer], choices) if choices else text_of(row[columns.answer], "answer")
    demonstration = row[columns.demonstration] if columns.demonstration else None
    return RawExample(
        question=text_of(row[columns.question], "question"),
        answer=answer_block(answer),
        choices=choices,
        images=list_of(row[columns.images] if columns.images else ()),
        demonstration=None if demonstration is None else text_of(demonstration, "demonstration"),
        meta={name: _meta_value(row[name], name) for name in columns.meta if row[name] is not None},
    )


def _builtin_rows(generate: GenerateRows, seed: int, split: str) -> Iterator[TableRow]:
    return (TableRow(values=values, where="data.origin (builtin)") for values in generate(seed, split))


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
    if not isinstance(value, str | int | float | bool):
        raise RowRejectedError(f"{name}: it is neither a text nor a number")
    return value


def _question_ids(file: Path) -> set[str]:
    try:
        ids = set(file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError([f"data.question_ids: {file} cannot be read ({error}); expected one id per line"]) from None
    if not ids:
        raise StudyError([f"data.question_ids: {file} is empty; expected one question id per line"])
    return ids
