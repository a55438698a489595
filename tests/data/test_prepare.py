"""The data stage as a whole: the files it writes, the same each time, and the records it rejects."""

import hashlib
import json
import os

import pytest

from rlassay.config import StudyError, load_study
from rlassay.config.data import Digits, Jsonl, JsonlPrompts
from rlassay.config.fingerprints import data_id
from rlassay.data import SOURCES, run_prepare_data
from rlassay.layout import Layout
from rlassay.records import read_rows
from rlassay.rewards import gold

FREE = {"question": "Who wrote it?", "answer": "Sappho"}
CHOICE = {"question": "Which animal?", "answer": "B", "choices": ["cat", "dog"]}


def study(data):
    return load_study("digits", "tiny").model_copy(update={"data": data})


def small(**changes):
    return study(Digits(kind="digits", splits={"sft": 24, "train": 16, "test": 16}).model_copy(update=changes))


def own(tmp_path, *rows):
    folder = tmp_path / "mine"
    folder.mkdir(exist_ok=True)
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return study(Jsonl(kind="jsonl", folder=str(folder), splits={"test": None}))


def numbers(counts):
    return {split: (facts.rows, facts.refused) for split, facts in counts.items()}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_writes_rows_images_and_a_manifest_of_them(tmp_path):
    layout = Layout(root=tmp_path)
    counts = run_prepare_data(small(), layout)
    assert numbers(counts) == {"sft": (24, {}), "train": (16, {}), "test": (16, {})}
    manifest = json.loads(layout.data_manifest.read_text(encoding="utf-8"))
    assert manifest["splits"] == {split: facts.model_dump(mode="json") for split, facts in counts.items()}
    assert manifest["id"] == data_id(small())
    for split, count in counts.items():
        rows = list(read_rows(layout.split(split)))
        assert len(rows) == count.rows
        assert all((layout.data / item.path).is_file() for row in rows for item in row.media)
        digest = hashlib.sha256(layout.split(split).read_bytes()).hexdigest()
        assert manifest["sha256"][f"{split}.jsonl"] == digest
    assert sorted(contents(layout.data)) == sorted(
        {"data.json", "sft.jsonl", "train.jsonl", "test.jsonl"}
        | {item.path for split in counts for row in read_rows(layout.split(split)) for item in row.media}
    )


def test_the_same_study_gives_the_same_bytes(tmp_path):
    first, second = Layout(root=tmp_path / "first"), Layout(root=tmp_path / "second")
    for layout in (first, second, second):  # elsewhere, and on top of itself
        run_prepare_data(small(), layout)
    assert contents(first.data) == contents(second.data)


def test_an_edited_study_replaces_all_files_of_the_old_one(tmp_path):
    edited, fresh = Layout(root=tmp_path / "edited"), Layout(root=tmp_path / "fresh")
    run_prepare_data(small(), edited)
    for layout in (edited, fresh):
        run_prepare_data(small(seed=1, splits={"sft": 8, "train": 8, "validation": 8}), layout)
    assert contents(edited.data) == contents(fresh.data)


def test_the_manifest_is_written_last_and_deleted_first(tmp_path, monkeypatch):
    layout = Layout(root=tmp_path)
    run_prepare_data(small(), layout)

    def broken(section):
        raise RuntimeError("the source broke")

    monkeypatch.setitem(SOURCES, "digits", broken)
    with pytest.raises(RuntimeError, match="the source broke"):
        run_prepare_data(small(), layout)
    assert not layout.data_manifest.exists()


def test_no_file_is_newer_than_the_manifest(tmp_path):
    layout = Layout(root=tmp_path)
    run_prepare_data(small(), layout)
    written = os.stat(layout.data_manifest).st_mtime_ns
    assert all(os.stat(layout.data / name).st_mtime_ns <= written for name in contents(layout.data))


def test_rows_without_full_reward_for_the_gold_answer_are_rejected_and_counted(tmp_path, monkeypatch):
    def blind_to_b(completions):
        return [float(completion.text == "A") for completion in completions]

    monkeypatch.setitem(gold.GOLD_CHECKED, "choice_accuracy", (blind_to_b, lambda row: row.answer))
    layout = Layout(root=tmp_path)
    counts = run_prepare_data(own(tmp_path, CHOICE, CHOICE | {"question": "Which one?", "answer": "A"}), layout)
    assert numbers(counts) == {"test": (1, {"choice_accuracy pays the gold answer 0 of 1": 1})}
    assert [row.question for row in read_rows(layout.split("test"))] == ["Which one?"]

    with pytest.raises(StudyError, match=r"no row of the split 'test' is left; rejected: 1 because choice_accuracy"):
        run_prepare_data(own(tmp_path, CHOICE), layout)
    assert not layout.data_manifest.exists()


def test_valid_own_rows_are_accepted(tmp_path):
    layout = Layout(root=tmp_path)
    assert numbers(run_prepare_data(own(tmp_path, CHOICE, FREE), layout)) == {"test": (2, {})}


def test_a_written_split_can_be_used_as_a_source(tmp_path):
    made, again = Layout(root=tmp_path / "made"), Layout(root=tmp_path / "again")
    run_prepare_data(small(), made)
    section = Jsonl(kind="jsonl", folder=str(made.data), splits={"sft": None, "train": None, "test": None})
    run_prepare_data(study(section), again)
    for split in section.splits:
        assert made.split(split).read_bytes() == again.split(split).read_bytes()


def test_a_source_in_the_data_folder_is_an_error_before_it_is_overwritten(tmp_path):
    layout = Layout(root=tmp_path)
    layout.data.mkdir()
    (layout.data / "test.jsonl").write_text(json.dumps(FREE) + "\n", encoding="utf-8")
    section = Jsonl(kind="jsonl", folder=str(layout.data), splits={"test": None})
    with pytest.raises(StudyError, match=r"data/test.jsonl is in the study's own data folder; move your files"):
        run_prepare_data(study(section), layout)
    assert layout.split("test").exists()


def test_a_mistake_in_a_row_stops_before_any_split_is_written(tmp_path):
    layout = Layout(root=tmp_path)
    with pytest.raises(StudyError, match=r"test.jsonl:2: answer: got 'Z'"):
        run_prepare_data(own(tmp_path, CHOICE, CHOICE | {"answer": "Z"}), layout)
    assert contents(layout.data) == {}


@pytest.mark.parametrize(("broken", "allowed"), [(1, 0.25), (1, 0.5), (2, 0.5), (3, 0.75), (4, 0.8)])
def test_bad_records_are_named_and_counted_up_to_a_share(tmp_path, broken, allowed):
    """Of the last case, one record of five is left; one more bad record than allowed stops the stage."""
    folder = tmp_path / "mine"
    folder.mkdir()
    good = [json.dumps({"prompt": f"What is {n}?", "answer": str(n)}) for n in range(max(1, 4 - broken))]
    lines = [good[0], *['{"prompt": '] * broken, *good[1:]]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n")
    section = JsonlPrompts(kind="jsonl_prompts", folder=str(folder), splits={"test": None}, max_rejected=allowed)
    facts = run_prepare_data(study(section), Layout(root=tmp_path))["test"]
    assert (facts.rows, facts.records) == (len(good), len(lines))
    assert facts.refused == {"invalid JSON; expected an object": broken}
    assert [one.where for one in facts.rejected] == [f"{folder}/test.jsonl:{n + 2}" for n in range(broken)]

    less = section.model_copy(update={"max_rejected": allowed - 0.01 if broken == allowed * len(lines) else 0.0})
    expected = rf"{broken} of {len(lines)} records of the split 'test' were rejected, .*data.max_rejected = .*:2: Expec"
    with pytest.raises(StudyError, match=expected):
        run_prepare_data(study(less), Layout(root=tmp_path))


def test_rejections_are_counted_and_a_failure_leaves_no_partial_file(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "test.jsonl").write_text('{"prompt": "One?", "answer": "1"}\n{"prompt": "ONE", "answer": "2"}\n')
    (folder / "train.jsonl").write_text('{"prompt": "one", "answer": "1"}\n{"prompt": "Two?", "answer": "2"}\n')
    section = JsonlPrompts(kind="jsonl_prompts", folder=str(folder))
    layout = Layout(root=tmp_path)
    reason = "nearly the same prompt is in the split 'test'"
    counts = run_prepare_data(study(section), layout)
    assert numbers(counts) == {"train": (1, {f"leak: {reason}": 1}), "test": (1, {f"duplicate: {reason}": 1})}
    (kept,) = read_rows(layout.split("test"))
    manifest = json.loads(layout.data_manifest.read_text(encoding="utf-8"))["splits"]
    for split, kind, line, question in (("train", "leak", 1, "one"), ("test", "duplicate", 2, "ONE")):
        (pair,) = manifest[split]["pairs"]
        assert (pair["kind"], pair["by"], pair["question"]) == (kind, "prompt", question)
        assert (pair["match_split"], pair["match_row"], pair["match_id"]) == ("test", 0, kept.prompt_id)
        assert pair["where"] == f"{folder}/{split}.jsonl:{line}"

    before = set(contents(layout.data)) - {"data.json"}
    with pytest.raises(StudyError, match=r"data.splits.train: asks for 2 rows, but only 1 are usable"):
        run_prepare_data(study(section.model_copy(update={"splits": {"train": 2, "test": None}})), layout)
    assert set(contents(layout.data)) == before
