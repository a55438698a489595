"""Local inputs identify results: by content where that is quick to read, once, and by size and time where it is not."""

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlassay.config import Study, inputs
from rlassay.config.fingerprints import data_id, evaluation_id, model_id, rl_id, score_id, sft_id
from rlassay.config.inputs import _json_values, data_inputs, hub_commit, snapshot
from tests.config.studies import study


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/rlassay/inputs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits in Parquet that name images, and a file of question ids."""
    folder = tmp_path / "data"
    (folder / "pictures").mkdir(parents=True)
    for split in ("train", "test"):
        table({"question": [f"{split}?", "b"], "answer": ["1", "2"]}, folder / f"{split}.parquet", split)
        (folder / f"pictures/{split}.png").write_bytes(split.encode())
    return folder


def table(columns: dict[str, list[str]], file: Path, split: str) -> None:
    pq.write_table(pa.table(columns | {"image": [f"pictures/{split}.png", None]}), file)


def of_tables(folder: Path, **data: object) -> Study:
    origin = {"kind": "parquet", "folder": str(folder)}
    splits = {"train": None, "test": None}
    section = {"kind": "table", "origin": origin, "splits": splits, "columns": {"images": "image"}}
    return study(data=section | data, sft=None)


def ids(of: Study) -> dict[str, str]:
    """All fingerprints of the first arm."""
    recipe = of.arms["base"].recipe
    found = {"data": data_id(of), "model": model_id(of, recipe), "rl": rl_id(of, "base", 1), "score": score_id(of)}
    found |= {"sft": sft_id(of, recipe)} if recipe.sft is not None else {}
    return found | {"evaluation": evaluation_id(of, recipe)}


def changed(of: Study, before: dict[str, str]) -> set[str]:
    return {name for name, value in ids(of).items() if before[name] != value}


def test_a_study_without_local_inputs_has_none():
    assert data_inputs(study().data) == {}


def test_one_cell_of_a_table_changes_everything_made_from_its_rows(folder: Path):
    of = of_tables(folder)
    before = ids(of)
    table({"question": ["train?", "b"], "answer": ["1", "3"]}, folder / "train.parquet", "train")
    assert changed(of, before) == {"data", "model", "rl", "evaluation"}


def test_an_image_that_a_row_names_is_an_input_and_its_neighbour_is_not(folder: Path):
    of = of_tables(folder)
    before = ids(of)
    (folder / "pictures/other.png").write_bytes(b"other")
    assert changed(of, before) == set()
    (folder / "pictures/train.png").write_bytes(b"TRAIN")
    assert changed(of, before) == {"data", "model", "rl", "evaluation"}


@pytest.mark.parametrize("kind", ["jsonl_prompts", "conversations", "jsonl"])
def test_media_of_json_records_are_inputs(kind: str, tmp_path: Path):
    media = {"jsonl_prompts": {"images": ["a.png"], "videos": "b.mp4"}, "conversations": {"image": ["a.png", "b.mp4"]}}
    media["jsonl"] = {"media": [{"kind": "image", "path": "a.png"}, {"kind": "image", "path": "b.mp4"}]}
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(json.dumps(media[kind]) + "\nno JSON\n")
    of = study(data={"kind": kind, "folder": str(tmp_path), "splits": {"train": None, "test": None}}, sft=None)
    for name in ("a.png", "b.mp4"):
        before = data_id(of)
        (tmp_path / name).write_bytes(b"new")
        assert data_id(of) != before


@pytest.mark.parametrize("line", ['{"图": "a.png"}', '{"\\u56fe": "a.png"}', ' {"x": "图", "图" : "a.png"}'])
def test_a_key_of_media_is_found_however_a_line_writes_it(line: str, tmp_path: Path):
    (tmp_path / "train.jsonl").write_text(f'{{"x": 1}}\n{line}\n', encoding="utf-8")
    assert list(_json_values(tmp_path / "train.jsonl", ("图",)))[-1] == "a.png"


@pytest.mark.parametrize("form", ["list", "lines"])
def test_media_of_a_json_table_are_inputs(form: str, tmp_path: Path):
    rows = [{"question": "?", "answer": "1", "image": {"path": "a.png"}}]
    for split in ("train", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps(rows if form == "list" else rows[0]))
    of = of_tables(tmp_path, origin={"kind": "json", "folder": str(tmp_path)})
    before = data_id(of)
    (tmp_path / "a.png").write_bytes(b"new")
    assert data_id(of) != before


def test_embedded_images_are_not_read_for_names(tmp_path: Path):
    image = [{"bytes": b"x", "path": "a.png"}]
    for split in ("train", "test"):
        pq.write_table(pa.table({"question": ["?"], "answer": ["1"], "image": image}), tmp_path / f"{split}.parquet")
    (tmp_path / "a.png").write_bytes(b"never used")
    assert sorted(data_inputs(of_tables(tmp_path).data)) == ["files of split 'test'", "files of split 'train'"]


def test_a_path_outside_of_the_root_is_no_input(folder: Path):
    (folder.parent / "secret.png").write_bytes(b"1")
    pq.write_table(pa.table({"question": ["?"], "answer": ["1"], "image": ["../secret.png"]}), folder / "test.parquet")
    of = of_tables(folder)
    before = data_id(of)
    (folder.parent / "secret.png").write_bytes(b"2")
    assert data_id(of) == before


def test_a_touch_changes_nothing(folder: Path):
    of = of_tables(folder)
    before = ids(of)
    for file in folder.rglob("*.p*"):
        os.utime(file, (time.time() + 60, time.time() + 60))
    assert changed(of, before) == set()


def test_large_files_are_known_by_size_and_time_and_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inputs, "HASHED_BYTES", 3)
    monkeypatch.setattr(inputs, "sha256", lambda path: pytest.fail(f"{path} was read"))
    of = of_tables(folder)
    before = data_id(of)
    assert data_id(of) == before
    os.utime(folder / "pictures/train.png", (1, 1))
    assert data_id(of) != before


def test_contents_are_read_once(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    of = of_tables(folder)
    monkeypatch.setattr(inputs, "SETTLED_SECONDS", -1.0)
    before = data_id(of)
    assert any(cache.iterdir())
    monkeypatch.setattr(inputs, "sha256", lambda path: pytest.fail(f"{path} was read again"))
    assert data_id(of) == before


def test_the_digest_of_a_file_that_changed_just_now_is_not_kept(folder: Path, cache: Path):
    data_id(of_tables(folder))
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_no_problem(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))
    monkeypatch.setattr(inputs, "SETTLED_SECONDS", -1.0)
    assert data_id(of_tables(folder)) == data_id(of_tables(folder))


def test_within_a_snapshot_inputs_are_looked_at_once(folder: Path):
    of = of_tables(folder)
    with snapshot():
        before = data_id(of)
        (folder / "train.parquet").unlink()
        assert data_id(of) == before
    assert data_id(of) != before


def test_a_missing_file_is_an_identity_of_its_own_and_no_error(tmp_path: Path):
    of = of_tables(tmp_path / "nowhere")
    assert set(data_inputs(of.data).values()) == {"missing"}
    assert data_id(of) != data_id(of_tables(tmp_path / "elsewhere"))


def test_question_ids_are_an_input(folder: Path):
    ids_file = folder / "ids.txt"
    ids_file.write_text("1\n")
    origin = {"kind": "parquet", "folder": str(folder)}
    of = study(data={"kind": "aokvqa", "origin": origin, "question_ids": str(ids_file)}, sft=None)
    before = data_id(of)
    ids_file.write_text("2\n")
    assert data_id(of) != before


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder, an adapter on it, and files that are no part of it."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for each in (base, adapter, base / ".git"):
        each.mkdir()
    (base / "model.safetensors").write_bytes(b"weights")
    (base / "chat_template.jinja").write_text("template")
    (base / ".git/HEAD").write_text("1")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    return base


@pytest.mark.parametrize("file", ["model.safetensors", "chat_template.jinja"])
@pytest.mark.parametrize("name", ["base", "adapter"])
def test_a_model_folder_and_the_base_of_an_adapter_are_inputs(model: Path, file: str, name: str):
    of = study(model={"kind": "hub", "name": str(model.with_name(name))})
    before = ids(of)
    (model / ".git/HEAD").write_text("2")
    assert changed(of, before) == set()
    (model / file).write_bytes(b"WEIGHTS!")
    assert changed(of, before) == {"model", "sft", "rl"}


def test_a_reward_model_folder_is_an_input_of_training_and_scores(model: Path):
    reward = {"weight": 1.0, "options": {"model": str(model)}}
    of = study(rewards__reward_model=reward)
    before = ids(of)
    (model / "model.safetensors").write_bytes(b"WEIGHTS")
    assert changed(of, before) == {"rl", "score"}


@pytest.mark.parametrize("name", ["custom", "brevity"])
def test_a_file_that_an_option_of_a_custom_reward_names_is_an_input(tmp_path: Path, name: str):
    words, other = tmp_path / "words.txt", tmp_path / "other.txt"
    words.write_text("few")
    other.write_text("none")
    options = {"scale": 2.0, "lists": [{"words": str(words)}, "no/such/file"]}
    (tmp_path / "own.py").write_text("def reward(item, scale, lists):\n    return scale\n")
    path = f"{tmp_path}/own.py:reward"
    if name == "custom":
        reward = {"weight": 1.0, "options": {"path": path, "options": options}}
    else:
        reward = {"weight": 1.0, "kind": "custom", "path": path, "options": options}
    of = study(**{f"rewards__{name}": reward})
    before = ids(of)
    other.write_text("any")
    assert changed(of, before) == set()
    words.write_text("more")
    assert changed(of, before) == {"rl", "score"}


def test_the_processor_that_limits_prompts_is_an_input_without_its_weights(model: Path):
    of = study(data__max_prompt_length={"tokens": 9, "model": str(model)})
    before = data_id(of)
    (model / "model.safetensors").write_bytes(b"WEIGHTS")
    assert data_id(of) == before
    (model / "chat_template.jinja").write_text("another")
    assert data_id(of) != before


def test_a_hub_dataset_has_no_commit_offline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub_commit(inputs.Hub(kind="hub", name="x/y", revision="main")) is None
