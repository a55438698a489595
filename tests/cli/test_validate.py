"""`rlassay validate`, run as users run it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rlassay.cli.main import main
from tests.config.studies import content, write
from tests.data.make_clips import write_clip


def test_a_sound_study_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["validate", "--study", "digits", "--scale", "tiny"]) == 0
    expected = "digits-tiny: sound; 4 arms x 2 seeds = 8 runs, baseline base\n"
    assert capsys.readouterr().out == expected


def test_a_study_file_needs_no_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = str(write(tmp_path / "study.yaml", content()))
    found: list[str] = []
    for chosen in ([path], ["--study", path]):
        assert main(["validate", *chosen]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]
    assert found[0].startswith("digits: sound; ")
    assert main(["validate", path, "--study", "digits"]) == 2
    assert capsys.readouterr().err.endswith(f"got two studies, {path} and --study digits; give one\n")


def test_problems_go_to_stderr_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "study.yaml", content(seeds=["1"], rl__max_steps=0))
    assert main(["validate", "--study", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"error: {path}: 2 problems\n"
        "  - rl.max_steps: got the number 0, expected a number of at least 1\n"
        "  - seeds.0: got the text '1', expected a whole number; write seeds: [1]\n"
    )


ROWS = {"question": ["What is 1 + 1?", "What is 2 + 2?"], "answer": ["2", "4"]}


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder with different rows in train.parquet and test.parquet."""
    pq.write_table(pa.table(ROWS), tmp_path / "train.parquet")
    pq.write_table(pa.table({"question": ["What is 3 + 5?"], "answer": ["8"]}), tmp_path / "test.parquet")
    return tmp_path


def of_tables(folder: Path, **edits: object) -> dict:
    data = {"kind": "table", "origin": {"kind": "parquet", "folder": str(folder)}}
    rewards = {"exact_match": {"weight": 1.0}}
    chosen = {"data": data, "rewards": rewards, "sft": None, "arms": {"base": {}}, "model": {"kind": "tiny_lm"}}
    return content(**chosen | {"primary__metric": "exact_match"} | edits)


def validated(study: dict, folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    path = write(folder / "digits.yaml", study)
    code = main(["validate", "--study", str(path), *options])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


@pytest.mark.parametrize("options", [(), ("--deep",)])
def test_a_study_of_local_files_is_sound(options: tuple[str, ...], tables: Path, capsys: pytest.CaptureFixture[str]):
    code, printed = validated(of_tables(tables), tables, capsys, *options)
    assert (code, printed) == (0, "digits: sound; 1 arms x 3 seeds = 3 runs, baseline base\n")


BROKEN = {
    "no folder": ({"data__origin__folder": "nowhere"}, "no file 'train*.parquet*' in nowhere"),
    "no column": ({"data__columns": {"question": "questoin"}}, "no column 'questoin'; it has question, answer"),
    "no model": ({"model": {"kind": "hub", "name": "./nowhere"}}, "there is no model folder './nowhere'"),
    "no reward model": (
        {"rewards__reward_model": {"weight": 1.0, "options": {"model": "./gone"}}},
        "rewards.reward_model.options.model: there is no model folder './gone'",
    ),
    "train is test": (
        {"data__origin__files": {"train": "test.parquet"}},
        "the splits 'train' and 'test' have the same rows",
    ),
    "no choices": (
        {"rewards": {"choice_accuracy": {"weight": 1.0}}, "primary__metric": "choice_accuracy"},
        "rewards.choice_accuracy: it can judge no row: of 3 rows",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_run_is_named(case: str, tables: Path, capsys: pytest.CaptureFixture[str]):
    edits, problem = BROKEN[case]
    study = of_tables(tables)
    for path, value in edits.items():
        *above, key = path.split("__")
        section = study
        for part in above:
            section = section.setdefault(part, {})
        section[key] = value
    code, printed = validated(study, tables, capsys)
    assert code == 2
    assert problem in printed
    assert "Traceback" not in printed


def test_what_lies_on_the_hub_is_not_tried_and_said_so(tables: Path, capsys: pytest.CaptureFixture[str]):
    code, printed = validated(of_tables(tables, model={"kind": "hub", "name": "org/model"}), tables, capsys)
    assert code == 0
    assert "not tried: the hub model 'org/model' (try it with --deep)" in printed


def test_a_custom_reward_under_a_name_of_its_own_is_tried(tables: Path, capsys: pytest.CaptureFixture[str]):
    (tables / "mine.py").write_text("def short(group):\n    return [1 / (len(group) - 2)] * 2\n")
    short = {"kind": "custom", "path": f"{tables}/mine.py:short", "batch": True, "weight": 1.0}
    code, printed = validated(of_tables(tables, rewards={"short": short}, primary__metric="short"), tables, capsys)
    assert code == 2
    assert "rewards.short: error on a gold or empty answer: " in printed
    assert "ZeroDivisionError" in printed


def test_a_custom_reward_that_fails_is_named(tables: Path, capsys: pytest.CaptureFixture[str]):
    (tables / "mine.py").write_text("def reward(item):\n    return 1 / 0\n")
    custom = {"weight": 1.0, "options": {"path": f"{tables}/mine.py:reward"}}
    study = of_tables(tables, rewards={"custom": custom}, primary__metric="custom")
    code, printed = validated(study, tables, capsys)
    assert code == 2
    assert "rewards.custom: error on a gold or empty answer: " in printed
    assert "ZeroDivisionError" in printed


def test_clips_and_images_that_cannot_be_shown_are_named_and_rows_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    clip = write_clip(None, fmt="mp4")
    Image.new("RGB", (8, 8)).save(tmp_path / "whole.png")
    picture = (tmp_path / "whole.png").read_bytes()
    files = {"whole.mp4": clip, "cut.mp4": clip[:-40], "cut.png": picture[:40]}
    for name, written in files.items():
        (tmp_path / name).write_bytes(written)

    def write_records(split: str, *paths: str) -> None:
        """One record per clip or image."""
        with (tmp_path / f"{split}.jsonl").open("w") as file:
            for number, path in enumerate(paths):
                asked = {"from": "human", "value": f"What is number {number} of {split}?"}
                turns = [asked, {"from": "gpt", "value": "<answer>A</answer>"}]
                kind = "video" if path.endswith("mp4") else "image"
                file.write(json.dumps({"conversations": turns, kind: path}) + "\n")

    write_records("train", "cut.mp4", "whole.mp4", "gone.mp4", "whole.png", "cut.png", "../up.mp4")
    write_records("test", "whole.mp4")
    data = {"kind": "conversations", "folder": str(tmp_path)}
    code, printed = validated(of_tables(tmp_path, data=data, model={"kind": "tiny_vlm"}), tmp_path, capsys)
    assert code == 0
    sound, *about = printed.replace(f"{tmp_path}/", "").replace(str(tmp_path.parent), "..").splitlines()
    assert sound.startswith("digits: sound; ")
    assert about == [
        "  left out: 4 of the first 6 records of split 'train'",
        "    train.jsonl:1: video: it is truncated (cut.mp4)",
        "    train.jsonl:3: video: no such file (gone.mp4)",
        "    train.jsonl:5: image: unreadable (cut.png)",
        "    and 1 more",
    ]
    turns = [{"from": "human", "value": "What is 1 + 1?"}, {"from": "gpt", "value": "<answer>2</answer>"}]
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps({"conversations": turns}) + "\n")
    code, printed = validated(of_tables(tmp_path, data=data, model={"kind": "tiny_vlm"}), tmp_path, capsys)
    assert code == 2
    assert "1 of 2 rows read of the split 'train' show neither image nor clip; TRL cannot train on both" in printed
