"""Records with media by path: prompts, conversations, and what a clip's frame counts must be."""

import io
import json

import pytest
from PIL import Image

from rlassay.config import StudyError
from rlassay.config.data import Conversations, JsonlPrompts
from rlassay.data import load_rows
from rlassay.data.drafts import RowRefusedError
from rlassay.data.media_records import frame_sampling
from rlassay.records import FrameSampling, PromptRow, parse_row
from tests.data.taking import take

META = {"frame_cnts": [15, 11], "min_frames": 4, "max_frames": 8, "dynamic_sample": True}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    (folder / "pictures").mkdir(parents=True)
    encoded = io.BytesIO()
    Image.new("RGB", (5, 3), "red").save(encoded, "PNG")
    (folder / "pictures" / "red.png").write_bytes(encoded.getvalue())
    (folder / "clip.mp4").write_bytes(b"not decoded here")
    return folder


def write(folder, *records, name="test.jsonl"):
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def refusals(section, tmp_path):
    return take(section, tmp_path)[1]["test"]


def turns(question, reply):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]


def test_prompts_with_keys_of_their_own(folder, tmp_path):
    write(
        folder,
        {"ask": "<image>\nWhich colour?", "gold": "red", "image": "red.png", "videos": []},
        {"ask": "请描述", "gold": 4, "image": None},
        {"ask": "No answer?", "image": []},
        {"ask": "Where?", "gold": "here", "image": ["../clip.mp4", "../../secret.png"]},
        {"ask": "Where?", "gold": "here", "image": ["../../secret.png"]},
    )
    section = JsonlPrompts(
        kind="jsonl_prompts",
        folder=str(folder),
        splits={"test": None},
        prompt_key="ask",
        answer_key="gold",
        image_key="image",
        image_dir="pictures",
    )
    first, second = load_rows(section, tmp_path / "out")
    assert (first.question, first.answer, len(first.media)) == ("Which colour?", "red", 1)
    assert (second.question, second.answer, second.media) == ("请描述", "4", ())
    outside = "image: its path leaves the data root"
    assert refusals(section, tmp_path) == ["answer: it is missing", outside, outside]
    with pytest.raises(StudyError, match=r"test.jsonl:1: no key 'askk' \(data.prompt_key\).*did you mean 'ask'"):
        list(load_rows(section.model_copy(update={"prompt_key": "askk"}), tmp_path / "out"))
    with pytest.raises(StudyError, match=r"data.image_dir: '../..' leads outside"):
        list(load_rows(section.model_copy(update={"image_dir": "../.."}), tmp_path / "out"))


def test_files_are_read_line_by_line(folder, tmp_path):
    write(folder, {"prompt": "One?", "answer": "1"})
    with (folder / "test.jsonl").open("a") as out:
        out.write("never read\n")
    section = JsonlPrompts(kind="jsonl_prompts", folder=str(folder), splits={"test": 1})
    assert [row.answer for row in load_rows(section, tmp_path / "out")] == ["1"]
    with pytest.raises(StudyError, match=r"test.jsonl:2: no JSON"):
        list(load_rows(section.model_copy(update={"splits": {"test": None}}), tmp_path / "out"))


def test_a_conversation_about_a_clip(folder, tmp_path):
    reply = "<answer>(1) Lift (2) Turn</answer>"
    records = [
        {"id": 0, "conversations": turns("<video>\nWhich actions?", reply), "video": "clip.mp4", "meta": META},
        {"conversations": turns("<image>\nWhich colour?", "red"), "image": "pictures/red.png"},
    ]
    (folder / "test.json").write_text(json.dumps(records))
    write(folder, records[0], name="sft.jsonl")
    section = Conversations(
        kind="conversations", folder=str(folder), files={"test": "test.json"}, splits={"test": None}
    )
    clip, picture = load_rows(section, tmp_path / "out")
    assert (clip.question, clip.answer, clip.meta) == ("Which actions?", "(1) Lift (2) Turn", {"id": "0"})
    frames = FrameSampling(frame_cnts=(15, 11), min_frames=4, max_frames=8)
    assert [(item.kind, item.path, item.frames) for item in clip.media] == [("video", str(folder / "clip.mp4"), frames)]
    assert parse_row(clip.model_dump_json().encode(), "here", PromptRow) == clip
    assert picture.media[0].kind == "image"
    (warm,) = load_rows(section.model_copy(update={"splits": {"sft": None}}), tmp_path / "out")
    assert warm.demonstration == reply


def test_conversations_of_another_form_are_refused(folder, tmp_path):
    good = turns("Which?", "(1)")
    write(
        folder,
        {"conversations": good[:1]},
        {"conversations": good + good},
        {"conversations": good, "video": "no.mp4"},
        {"conversations": good, "video": "clip.mp4", "meta": META | {"frame_cnts": []}},
        {"conversations": good, "video": "../../clip.mp4"},
    )
    section = Conversations(kind="conversations", folder=str(folder), splits={"test": None})
    assert refusals(section, tmp_path) == [
        "conversations: expected one human turn and then one gpt turn",
        "conversations: expected one human turn and then one gpt turn",
        "video: no such file",
        "meta.frame_cnts: expected positive whole numbers",
        "video: its path leaves the data root",
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"frame_cnts": [3, 0]}, "frame_cnts: expected positive"),
        ({"frame_cnts": [True]}, "frame_cnts: expected positive"),
        ({"frame_cnts": [1, 2]}, "fewer frames together than min_frames"),
        ({"min_frames": 9}, "min_frames at most max_frames"),
        ({"max_frames": "8"}, "min_frames: expected positive"),
        ({"dynamic_sample": 1}, "dynamic_sample: expected true or false"),
        ({"fps": 2}, "expected a mapping of frame_cnts"),
    ],
)
def test_frame_counts_are_held_to_their_meaning(changes, reason):
    with pytest.raises(RowRefusedError, match=reason):
        frame_sampling(META | changes)


def test_missing_files_and_folders_are_named(folder, tmp_path):
    section = Conversations(kind="conversations", folder=str(folder), splits={"train": None})
    with pytest.raises(StudyError, match=r"train.jsonl: missing; name the file of 'train' in data.files"):
        list(load_rows(section, tmp_path / "out"))
    with pytest.raises(StudyError, match=r"data.folder: .*nowhere is no folder"):
        list(load_rows(section.model_copy(update={"folder": "nowhere"}), tmp_path / "out"))
