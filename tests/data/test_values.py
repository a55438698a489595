"""Values of records become the text that their source has, in every format; missing and ambiguous golds are named."""

import datetime
import json
import math
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlassay.config import StudyError
from rlassay.config.data import Columns, Files, Gsm8k, Hub, JsonlPrompts, Table
from rlassay.data.raw_examples import RowRejectedError
from rlassay.data.tables import gold_letter
from rlassay.data.values import arrow_rows, list_of, parse_json, text_of
from tests.data.ingesting import ingest_all


def take(folder, kind="json", **columns):
    section = Table(
        kind="table",
        origin=Files(kind=kind, folder=str(folder)),
        columns=Columns(**columns),
        splits={"test": None},
    )
    rows, rejected = ingest_all(section, folder)
    return rows["test"], rejected["test"]


def write(folder, *lines, name="test.json"):
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('"x+1"', "x+1"),
        ('"5"', "5"),
        ("5", "5"),
        ("-3", "-3"),
        ("5.0", "5"),
        ("0.10", "0.10"),
        ("1e-7", "1e-7"),
        ("12345678901234567890", "12345678901234567890"),
        ("3.14159265358979323846", "3.14159265358979323846"),
        ('"2020-01-02"', "2020-01-02"),
        ('"2020-01-02T03:04:05Z"', "2020-01-02T03:04:05Z"),
        ('"[1, 2]"', "[1, 2]"),
        ('"\\"quoted\\""', '"quoted"'),
        ('"null"', "null"),
    ],
)
def test_a_json_gold_is_the_text_as_written(tmp_path, written, text):
    others = ['"word"', "7", "0.5"]
    write(tmp_path, *(f'{{"question": "q{n}", "answer": {value}}}' for n, value in enumerate([written, *others])))
    rows, rejected = take(tmp_path)
    assert [row.answer for row in rows] == [text, "word", "7", "0.5"]
    assert rejected == []


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("NaN", "answer: it is missing (NaN)"),
        ("null", "answer: it is missing"),
        ("Infinity", "answer: it is an infinite number"),
        ("true", "answer: it is no text"),
        ('{"a": 1}', "answer: it is no text"),
        ("[1]", "answer: it is no text"),
    ],
)
def test_a_missing_gold_rejects_its_row_by_name(tmp_path, written, reason):
    write(tmp_path, f'{{"question": "q", "answer": {written}}}', '{"question": "r", "answer": 3}')
    rows, rejected = take(tmp_path)
    assert ([row.answer for row in rows], rejected) == (["3"], [reason])


def test_a_key_that_some_records_leave_out_is_missing_there(tmp_path):
    write(tmp_path, '{"question": "q"}', '{"question": "r", "answer": 3}')
    assert take(tmp_path)[1] == ["answer: it is missing"]


def test_choices_ids_and_images_of_mixed_types_are_kept(tmp_path):
    records = [
        {"question": "a", "answer": "x", "choices": ["x", 2, 2.5], "image": None, "id": 7},
        {"question": "b", "answer": "2", "choices": [1, 2], "image": [], "id": "seven"},
        {"question": "c", "answer": 5, "choices": None, "image": "none.png", "id": 1.25},
    ]
    write(tmp_path, *map(json.dumps, records))
    rows, rejected = take(tmp_path, choices="choices", images="image", meta=("id",))
    assert [(row.choices, row.answer) for row in rows] == [(("x", "2", "2.5"), "A"), (("1", "2"), "B")]
    assert [row.meta["id"] for row in rows] == [7, "seven"]
    assert rejected == ["image: no such file"]


def test_gsm8k_answers_of_mixed_types(tmp_path):
    write(tmp_path, '{"question": "q", "answer": "so 5\\n#### 5"}', '{"question": "r", "answer": 5}', name="sft.json")
    section = Gsm8k(kind="gsm8k", origin=Files(kind="json", folder=str(tmp_path)), splits={"sft": None})
    rows, rejected = ingest_all(section, tmp_path)
    assert [row.answer for row in rows["sft"]] == ["5"]
    assert rejected["sft"] == ["answer: no #### before the final number"]


@pytest.mark.parametrize("name", ["test.json", "test.jsonl"])
@pytest.mark.parametrize("text", ['[{"question": "a", "answer": 1}, {"question": "b", "answer": "x"}]', "\n\n[\n{}\n]"])
def test_a_list_of_objects_is_read(tmp_path, name, text):
    if text.startswith("["):
        write(tmp_path, json.dumps(json.loads(text), indent=2), name=name)
        assert [row.answer for row in take(tmp_path)[0]] == ["1", "x"]
    else:
        write(tmp_path, text.replace("{}", '{"question": "a", "answer": 0.5}, 3'), name=name)
        rows, rejected = take(tmp_path)
        assert ([row.answer for row in rows], rejected) == (["0.5"], ["expected an object"])


def test_a_broken_list_is_an_error_and_a_broken_line_a_rejected_record(tmp_path):
    write(tmp_path, '[{"question": "a", "answer": 1},')
    with pytest.raises(StudyError, match=r"test.json: invalid JSON .* expected a list of objects, or one object per"):
        take(tmp_path)
    (tmp_path / "test.json").write_bytes(b'{"question": "a", "answer": 1}\n{"quest\n{"question": "\xe9"}\n"text"\n')
    rows, rejected = take(tmp_path)
    assert ([row.answer for row in rows], rejected) == (
        ["1"],
        ["invalid JSON; expected an object", "not UTF-8", "expected an object"],
    )


PARQUET = {
    "an integer column with a gap": (pa.array([5.0, None], pa.float64()), "5"),
    "32-bit floats": (pa.array([0.1, 2.5], pa.float32()), "0.1"),
    "16-bit floats": (pa.array([0.1, 2.5], pa.float16()), "0.1"),
    "64-bit floats": (pa.array([0.1 + 0.2, 2.5]), "0.30000000000000004"),
    "decimals": (pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)), "1.50"),
    "dates": (pa.array([datetime.date(2020, 1, 2), None]), "2020-01-02"),
    "dates as times": (pa.array([datetime.datetime(2020, 1, 2), None], pa.timestamp("ns")), "2020-01-02"),
    "times": (pa.array([datetime.datetime(2020, 1, 2, 3, 4, 5)] * 2, pa.timestamp("us")), "2020-01-02T03:04:05"),
    "categories": (pa.array(["x", "y"]).dictionary_encode(), "x"),
    "unsigned": (pa.array([2**63 + 1, 1], pa.uint64()), "9223372036854775809"),
}


@pytest.mark.parametrize(("answers", "text"), PARQUET.values(), ids=PARQUET)
def test_a_parquet_gold_becomes_its_text(tmp_path, answers, text):
    pq.write_table(pa.table({"question": ["q", "r"], "answer": answers}), tmp_path / "test.parquet")
    assert take(tmp_path, "parquet")[0][0].answer == text
    hub = Hub(kind="hub", name=str(tmp_path), revision="main")
    rows, _ = ingest_all(Table(kind="table", origin=hub, splits={"test": None}), tmp_path)
    assert rows["test"][0].answer == text


def test_nested_narrow_floats_are_written_as_they_are_shown():
    column = pa.array([[{"x": [0.1, None]}], None], pa.list_(pa.struct([("x", pa.list_(pa.float32()))])))
    first, second = arrow_rows(pa.table({"c": column}))
    assert text_of(first["c"][0]["x"][0], "c") == "0.1"
    assert (first["c"][0]["x"][1], second["c"]) == (None, None)


def test_a_dataset_folder_of_mixed_json_keeps_its_texts(tmp_path):
    write(tmp_path, '{"question": "q", "answer": "x+1"}', '{"question": "r", "answer": 5}', name="test.jsonl")
    section = Table(kind="table", origin=Hub(kind="hub", name=str(tmp_path), revision="main"), splits={"test": None})
    assert [row.answer for row in ingest_all(section, tmp_path)[0]["test"]] == ["x+1", "5"]


def test_prompts_keep_written_numbers_and_need_their_key_only_somewhere(tmp_path):
    write(tmp_path, '{"answer": 1}', '{"prompt": "q", "answer": 0.10}', name="test.jsonl")
    section = JsonlPrompts(kind="jsonl_prompts", folder=str(tmp_path), splits={"test": None})
    rows, rejected = ingest_all(section, tmp_path)
    assert [row.answer for row in rows["test"]] == ["0.10"]
    assert rejected["test"] == ["question: it is missing"]


@pytest.mark.parametrize(
    ("answer", "answer_is", "choices", "letter"),
    [
        (1, None, ("cat", "dog"), "B"),
        (1.0, None, ("cat", "dog"), "B"),  # an integer column with a gap
        (7, None, ("5", "7"), "B"),  # no such index, so it is a text
        (1, None, ("0", "1"), "B"),  # the same option either way
        (1, "index", ("1", "2"), "B"),
        ("1", "index", ("1", "2"), "B"),
        (1, "text", ("1", "2"), "A"),
        ("1", None, ("1", "2"), "A"),
        ("B", None, ("B", "A"), "A"),
        ("B", "letter", ("B", "A"), "B"),
        (0.5, None, ("0.25", "0.5"), "B"),
    ],
)
def test_the_option_that_a_gold_means(answer, answer_is, choices, letter):
    assert gold_letter(answer, choices, column="gold", answer_is=answer_is) == letter


def test_a_number_that_may_be_an_index_or_a_text_is_an_error(tmp_path):
    for answer in (1, 1.0):
        with pytest.raises(
            StudyError,
            match=r"data.columns.answer: the column 'gold' holds the number 1, .* index of the option '2' .* text of "
            r"option 0, .* set data.columns.answer_is to 'index' or to 'text'",
        ):
            gold_letter(answer, ("1", "2"), column="gold")
    write(tmp_path, '{"question": "q", "gold": 1, "choices": [1, 2]}')
    with pytest.raises(StudyError, match="answer_is"):
        take(tmp_path, answer="gold", choices="choices")
    assert take(tmp_path, answer="gold", choices="choices", answer_is="text")[0][0].answer == "A"
    with pytest.raises(RowRejectedError, match="its number is none of the choices"):
        gold_letter(-1, ("cat", "dog"), column="gold")


def test_missing_values_are_no_items():
    assert list_of(None) == list_of(math.nan) == ()
    assert list_of(0) == (0,)
    assert parse_json("[1.50]")[0] == 1.5
