"""Tables in files and dataset folders: how columns become rows, and the errors for wrong columns and files."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rlassay.config import StudyError
from rlassay.config.data import Aokvqa, Columns, Files, Gsm8k, Hub, ImagePolicy, Summarization, Table
from rlassay.data import load_rows
from tests.data.ingesting import ingest_all


def picture(seed, size=(32, 24), kind="PNG"):
    """A picture of 8x6 blocks whose grey levels a small generator draws: no two seeds look alike."""
    levels = bytes((seed * 7919 + position * position * 31 + position * seed) % 256 for position in range(48))
    buffer = io.BytesIO()
    Image.frombytes("L", (8, 6), levels).resize(size, Image.Resampling.NEAREST).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def parquet(folder, **splits):
    folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
    return Files(kind="parquet", folder=str(folder))


def test_columns_are_mapped_and_images_stored(tmp_path):
    rows = [
        {
            "q": "Which animal?",
            "gold": 1,
            "options": ["cat", "dog"],
            "pic": {"bytes": picture(1), "path": None},
            "n": 7,
        },
        {
            "q": "Which plant?",
            "gold": 0,
            "options": ["oak", "fern"],
            "pic": {"bytes": picture(2), "path": None},
            "n": 8,
        },
    ]
    columns = Columns(question="q", answer="gold", choices="options", images="pic", meta=("n",))
    section = Table(kind="table", origin=parquet(tmp_path / "in", test=rows), columns=columns, splits={"test": None})
    first, second = load_rows(section, tmp_path / "out")
    assert (first.question, first.answer, first.choices, first.meta) == ("Which animal?", "B", ("cat", "dog"), {"n": 7})
    assert (tmp_path / "out" / first.media[0].path).read_bytes() == picture(1)
    assert second.answer == "A"
    assert load_rows(section, tmp_path / "elsewhere").__next__() == first


def test_the_preset_reads_image_problem_solution(tmp_path):
    solution = "<think>3 and 4</think><answer>7</answer>"
    rows = [{"image": picture(1), "problem": "What is 3 + 4?", "solution": solution}]
    origin = parquet(tmp_path / "in", sft=rows)
    section = Table(kind="table", origin=origin, preset="image_problem_solution", splits={"sft": None})
    (row,) = load_rows(section, tmp_path / "out", "sft")
    assert (row.question, row.answer, row.demonstration) == ("What is 3 + 4?", "7", solution)
    with pytest.raises(StudyError, match=r"data.preset: data.columns is set too"):
        ingest_all(section.model_copy(update={"columns": Columns()}), tmp_path)


def test_json_files_patterns_and_a_dataset_folder(tmp_path):
    (tmp_path / "a-1.json").write_text('{"question": "One?", "answer": "1"}\n')
    (tmp_path / "a-2.json").write_text('{"question": "Two?", "answer": "2"}\n')
    origin = Files(kind="json", folder=str(tmp_path), files={"test": "a-*.json"})
    accepted, _ = ingest_all(Table(kind="table", origin=origin, splits={"test": None}), tmp_path)
    assert [row.answer for row in accepted["test"]] == ["1", "2"]

    parquet(tmp_path / "set", validation=[{"question": "Three?", "answer": "3"}])
    hub = Hub(kind="hub", name=str(tmp_path / "set"), revision="main", names={"test": "validation"})
    accepted, _ = ingest_all(Table(kind="table", origin=hub, splits={"test": None}), tmp_path)
    assert [row.answer for row in accepted["test"]] == ["3"]


def test_mistakes_in_a_section_are_errors(tmp_path):
    origin = parquet(tmp_path / "in", test=[{"questoin": "One?", "answer": "1"}])
    with pytest.raises(StudyError, match=r"split 'test': no column 'question'; it has questoin, answer; did you mean"):
        ingest_all(Table(kind="table", origin=origin, splits={"test": None}), tmp_path)
    with pytest.raises(
        StudyError, match=r"no file 'train\*.parquet\*' in .*in, for the split 'train'; add it to files"
    ):
        ingest_all(Table(kind="table", origin=origin, splits={"train": None}), tmp_path)
    (tmp_path / "in" / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(StudyError, match=r"split 'train': cannot be read"):
        ingest_all(Table(kind="table", origin=origin, splits={"train": None}), tmp_path)
    columns = Columns(question="questoin")
    with pytest.raises(
        StudyError, match=r"data.splits.test: asks for 3 rows, but only 1 are usable; lower it, or null"
    ):
        ingest_all(Table(kind="table", origin=origin, columns=columns, splits={"test": 3}), tmp_path)


def test_bad_rows_are_counted_by_reason(tmp_path):
    def row(**changes):
        return {"question": "Which?", "answer": "A", "choices": ["cat", "dog"], "image": picture(1)} | changes

    rows = [
        row(),
        row(question=None),
        row(answer="C"),
        row(choices=["cat", "cat"]),
        row(image=None),
        row(image=b"no image"),
        row(image=picture(2, (40, 3))),
        row(question="WHICH"),
        row(question="Another?"),
    ]
    columns = Columns(choices="choices", images="image")
    section = Table(kind="table", origin=parquet(tmp_path / "in", test=rows), columns=columns, splits={"test": None})
    accepted, rejected = ingest_all(section.model_copy(update={"images": ImagePolicy(max_side=32)}), tmp_path)
    assert [row.question for row in accepted["test"]] == ["Which?", "Which?", "Another?"]
    assert [len(row.media) for row in accepted["test"]] == [1, 0, 1]
    assert rejected["test"] == [
        "question: it is missing",
        "answer: got ..., which is not among the choices",
        "choices: ... appears twice, so that two letters would be right",
        "image: unreadable",
        "image: a side above 32 pixels",
        "duplicate: nearly the same prompt is in the split 'test'",
    ]


def test_aokvqa(tmp_path):
    def item(name, seed, idx):
        return {
            "image": {"bytes": picture(seed), "path": None},
            "question_id": name,
            "question": f"What is {name}?",
            "choices": ["red", "green", "blue", "grey"],
            "correct_choice_idx": idx,
            "rationales": [f"{name} grows.", "It does."],
        }

    origin = parquet(tmp_path / "in", sft=[item("q1", 1, 1), item("q2", 2, 3), item("q3", 3, 9), item("q4", 4, 0)])
    (tmp_path / "ids.txt").write_text("q1\nq3\nq4\n")
    section = Aokvqa(kind="aokvqa", origin=origin, splits={"sft": None}, question_ids=str(tmp_path / "ids.txt"))
    accepted, rejected = ingest_all(section, tmp_path)
    first, last = accepted["sft"]
    assert (first.answer, first.demonstration) == ("B", "<think>q1 grows.</think><answer>B</answer>")
    assert first.media[0].path.startswith("images/q1_")
    with Image.open(tmp_path / "out" / first.media[0].path) as stored:
        assert (stored.format, stored.mode) == ("JPEG", "RGB")
    assert last.meta == {"question_id": "q4"}
    assert rejected["sft"] == ["question_id: not in data.question_ids", "answer: its number is none of the choices"]
    with pytest.raises(StudyError, match=r"data.question_ids: .*nowhere cannot be read"):
        ingest_all(section.model_copy(update={"question_ids": str(tmp_path / "nowhere")}), tmp_path)


def test_gsm8k_and_summarization(tmp_path):
    worked = "3 pens cost 3*400=<<3*400=1200>>1,200 cents.\n#### 1,200"
    rows = [{"question": "What do 3 pens cost?", "answer": worked}, {"question": "And 4?", "answer": "1600"}]
    accepted, rejected = ingest_all(
        Gsm8k(kind="gsm8k", origin=parquet(tmp_path / "in", sft=rows), splits={"sft": None}), tmp_path
    )
    (row,) = accepted["sft"]
    assert row.answer == "1200"
    assert row.demonstration == "<think>3 pens cost 3*400=1,200 cents.</think><answer>1200</answer>"
    assert rejected["sft"] == ["answer: no #### before the final number"]

    (tmp_path / "in" / "test.json").write_text(json.dumps({"document": "A long text.", "summary": "长文"}))
    origin = Files(kind="json", folder=str(tmp_path / "in"))
    accepted, _ = ingest_all(Summarization(kind="summarization", origin=origin, splits={"test": None}), tmp_path)
    assert [(row.question, row.answer) for row in accepted["test"]] == [("A long text.", "长文")]
