"""JSON sources: prompts, conversations and clips, then rows in this project's format with every possible mistake."""

import io
import json
import os

import pytest
from PIL import Image

from rlassay.config import StudyError
from rlassay.config.data import Conversations, Jsonl, JsonlPrompts
from rlassay.data import load_rows
from rlassay.data.json_records import frame_sampling
from rlassay.data.raw_examples import RowRejectedError
from rlassay.data.row_checks import content_id
from rlassay.images import open_strip
from rlassay.records import FrameSampling, PromptRow, parse_row
from tests.data.ingesting import ingest_all
from tests.data.make_clips import level, write_clip

META = {"frame_cnts": [15, 11], "min_frames": 4, "max_frames": 8, "dynamic_sample": True}
ROW = {"question": "Which animal?", "answer": "B", "choices": ["cat", "dog"], "media": [{"path": "red.png"}]}
FREE = {"question": "Who wrote it?", "answer": "Sappho"}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    (folder / "pictures").mkdir(parents=True)
    encoded = io.BytesIO()
    Image.new("RGB", (5, 3), "red").save(encoded, "PNG")
    (folder / "pictures" / "red.png").write_bytes(encoded.getvalue())
    write_clip(folder / "clip.mp4")
    return folder


def write(folder, *records, name="test.jsonl"):
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def rejections(section, tmp_path):
    return ingest_all(section, tmp_path)[1]["test"]


def turns(question, reply):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]


def test_prompts_with_custom_keys(folder, tmp_path):
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
    assert rejections(section, tmp_path) == ["answer: it is missing", outside, outside]
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
    assert rejections(section.model_copy(update={"splits": {"test": None}}), tmp_path) == [
        "invalid JSON; expected an object"
    ]


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
    (shown,) = clip.media
    assert (shown.kind, shown.path, shown.frames) == ("video", str(folder / "clip.mp4"), frames)
    # 4 s, of which the study shows a frame every 2; meta asks for at least 4 of the 40.
    assert (shown.duration, shown.fps, shown.times) == (4.0, 10.0, (0.0, 1.3, 2.6, 3.9))
    strip = open_strip(tmp_path / "out" / shown.strip, 4)
    assert [level(frame) for frame in strip] == [0, 13, 26, 39]
    assert parse_row(clip.model_dump_json().encode(), "here", PromptRow) == clip
    assert picture.media[0].kind == "image"
    (warm,) = load_rows(section.model_copy(update={"splits": {"sft": None}}), tmp_path / "out")
    assert warm.demonstration == reply


def test_invalid_conversations_are_rejected(folder, tmp_path):
    good = turns("Which?", "(1)")
    write(
        folder,
        {"conversations": good[:1]},
        {"conversations": good + good},
        {"conversations": good, "video": "no.mp4"},
        {"conversations": good, "video": "clip.mp4", "meta": META | {"frame_cnts": []}},
        {"conversations": good, "video": "../../clip.mp4"},
        {"conversations": good, "video": "broken.mp4"},
        {"conversations": good, "video": "text.mp4"},
    )
    whole = (folder / "clip.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_bytes(b"once upon a time")
    section = Conversations(kind="conversations", folder=str(folder), splits={"test": None})
    assert rejections(section, tmp_path) == [
        "conversations: expected one human turn and then one gpt turn",
        "conversations: expected one human turn and then one gpt turn",
        "video: no such file",
        "meta.frame_cnts: expected positive whole numbers",
        "video: its path leaves the data root",
        "video: it cannot be decoded",
        "video: it cannot be decoded",
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
def test_invalid_frame_counts_are_rejected(changes, reason):
    with pytest.raises(RowRejectedError, match=reason):
        frame_sampling(META | changes)


def test_a_record_may_leave_limits_on_frames_to_the_study():
    assert frame_sampling({"max_frames": 6}) == FrameSampling(max_frames=6)
    assert frame_sampling({"frame_cnts": [3]}) == FrameSampling(frame_cnts=(3,))
    assert frame_sampling({"dynamic_sample": False}) == FrameSampling(dynamic_sample=False)


def test_missing_files_and_folders_are_errors(folder, tmp_path):
    section = Conversations(kind="conversations", folder=str(folder), splits={"train": None})
    with pytest.raises(StudyError, match=r"train.jsonl: missing; name the file of 'train' in data.files"):
        list(load_rows(section, tmp_path / "out"))
    with pytest.raises(StudyError, match=r"data.folder: .*nowhere is not a folder"):
        list(load_rows(section.model_copy(update={"folder": "nowhere"}), tmp_path / "out"))


def png(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (5, 3), colour).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def own_folder(tmp_path):
    own_folder = tmp_path / "mine"
    own_folder.mkdir()
    (own_folder / "red.png").write_bytes(png())
    (own_folder / "blue.png").write_bytes(png("blue"))
    return own_folder


def write_own(own_folder, **splits):
    for split, rows in splits.items():
        lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
        (own_folder / f"{split}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def ingest_own(own_folder, splits=None):
    section = Jsonl(kind="jsonl", folder=str(own_folder), splits=splits or {"test": None})
    return ingest_all(section, own_folder.parent)


def test_rows_are_read_with_their_images(own_folder):
    given = ROW | {"prompt_id": "q-17", "meta": {"source": "zoo", "year": 1931, "hard": True}}
    write_own(own_folder, train=[given, FREE], sft=[ROW | {"question": "哪个动物?", "demonstration": "B"}])
    rows, rejected = ingest_own(own_folder, {"train": None, "sft": None})
    first, second = rows["train"]
    assert (first.prompt_id, first.choices, first.meta["year"]) == ("q-17", ("cat", "dog"), 1931)
    assert (own_folder.parent / "out" / first.media[0].path).read_bytes() == png()
    assert (second.answer, second.choices, second.media) == ("Sappho", (), ())
    assert second.prompt_id == content_id(second)
    assert rows["sft"][0].media == first.media
    assert rejected == {"train": [], "sft": []}


def test_a_limit_reads_only_the_head(own_folder):
    write_own(own_folder, test=[FREE, ROW, b"this line is never read"])
    assert [row.answer for row in ingest_own(own_folder, {"test": 2})[0]["test"]] == ["Sappho", "B"]


def test_images_may_be_in_subfolders(own_folder):
    (own_folder / "deep").mkdir()
    (own_folder / "deep" / "blue.png").write_bytes(png("blue"))
    write_own(own_folder, test=[ROW | {"media": [{"path": "deep/../deep/blue.png"}]}])
    assert ingest_own(own_folder)[0]["test"][0].media[0].path.startswith("images/")


def changed(**fields):
    return [ROW | fields]


BAD_ROWS = {
    "bad json": ([b'{"question": '], "mine/test.jsonl:1: the line: invalid JSON: EOF while parsing"),
    "blank line": ([ROW, b""], "test.jsonl:2: the line: invalid JSON: EOF while parsing"),
    "not an object": ([b'["B"]'], "test.jsonl:1: the line: .*object"),
    "bad utf-8": ([b'{"question": "caf\xe9"}'], r"test.jsonl:1: not UTF-8 \(invalid continuation byte at byte 17\)"),
    "lone surrogate": (
        [b'{"question": "\\ud800", "answer": "x"}'],
        "test.jsonl:1: the line: invalid JSON: unexpected end of hex escape",
    ),
    "missing field": ([{"question": "Who?"}], "test.jsonl:1: answer: field required; expected a PromptRow"),
    "unknown field": (
        changed(anser="B"),
        "test.jsonl:1: anser: unknown field; the fields are prompt_id, question, ans",
    ),
    "answer is a number": (changed(answer=1), "test.jsonl:1: answer: input should be a valid string, got '1'"),
    "choices are text": (changed(choices="cat dog"), "test.jsonl:1: choices: .*array, got 'cat dog'"),
    "media is text": (changed(media=["red.png"]), "test.jsonl:1: media.0: .*object"),
    "media of no kind": (
        changed(media=[{"kind": "smell", "path": "red.png"}]),
        "media.0.kind: .*'image' or 'video', got 'smell'",
    ),
    "a video": (changed(media=[{"kind": "video", "path": "a.mp4"}]), "media: 'a.mp4': a video; expected an image"),
    "nested meta": (changed(meta={"a": {"b": 1}}), "test.jsonl:1: meta.a"),
    "blank question": (changed(question=" "), "test.jsonl:1: question: it is blank; expected text"),
    "odd prompt_id": (changed(prompt_id="../a"), "test.jsonl:1: prompt_id: got '../a', expected up to 64 of A-Z a-z"),
    "one choice": (changed(choices=["cat"], answer="A"), "test.jsonl:1: choices: got 1, expected 2 to 10"),
    "eleven choices": (changed(choices=list("abcdefghijk")), "test.jsonl:1: choices: got 11, expected 2 to 10"),
    "blank choice": (changed(choices=["cat", ""]), "test.jsonl:1: choices: one of them is blank"),
    "equal choices": (
        changed(choices=["cat", "cat"]),
        "test.jsonl:1: choices: 'cat' appears twice, .* make them differ",
    ),
    "answer not among the choices": (
        changed(answer="C"),
        "test.jsonl:1: answer: got 'C', which is not among the choices; expected a letter A/B$",
    ),
    "answer is an option's text": (
        changed(answer="dog"),
        "answer: got 'dog', .* expected a letter A/B; write 'B'",
    ),
    "answer in lower case": (changed(answer="b"), "answer: got 'b', .* expected a letter A/B; write 'B'"),
    "empty answer": (changed(answer=""), "answer: got '', which is not among the choices"),
    "blank free answer": ([FREE | {"answer": " "}], "test.jsonl:1: answer: it is blank; expected the gold answer"),
    "demonstration elsewhere": (changed(demonstration="B"), "demonstration: rows of the test split have none; remove"),
    "duplicate id": (
        [ROW | {"prompt_id": "a"}, FREE | {"prompt_id": "a"}],
        "test.jsonl:2: prompt_id: 'a' belongs to another row of the split 'test' too; give each row its own, or leave",
    ),
    "missing image": (changed(media=[{"path": "no.png"}]), r"test.jsonl:1 \(with 'no.png'\): image: no such file"),
    "image is a folder": (changed(media=[{"path": "."}]), r"\(with '.'\): image: no such file"),
    "absolute path": (changed(media=[{"path": "/etc/passwd"}]), "image: its path leaves the data root"),
    "path upwards": (
        changed(media=[{"path": "../x.png"}]),
        "image: its path leaves the data root",
    ),
    "link outwards": (changed(media=[{"path": "link.png"}]), "image: its path leaves the data root"),
    "unreadable image": (
        changed(media=[{"path": "broken.png"}]),
        r"test.jsonl:1 \(with 'broken.png'\): image: unreadable",
    ),
    "not an image": (changed(media=[{"path": "test.jsonl"}]), "image: unreadable"),
    "null byte in a path": (changed(media=[{"path": "a\0.png"}]), "image: not a possible path"),
    "image of another kind": (changed(media=[{"path": "odd.tiff"}]), "image: its format is none of PNG, JPEG, WEBP"),
    "empty file": ([], "mine/test.jsonl: empty; expected one JSON object per line"),
}


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_every_mistake_is_reported(own_folder, rows, message):
    (own_folder / "broken.png").write_bytes(png()[:40])
    Image.new("RGB", (5, 3)).save(own_folder / "odd.tiff")
    (own_folder.parent / "outside.png").write_bytes(png())
    os.symlink(own_folder.parent / "outside.png", own_folder / "link.png")
    write_own(own_folder, test=rows)
    with pytest.raises(StudyError, match=message):
        ingest_own(own_folder)


def test_a_demonstration_is_needed_for_sft(own_folder):
    write_own(own_folder, sft=[ROW | {"demonstration": "<answer>B</answer>"}, ROW | {"question": "And now?"}])
    with pytest.raises(StudyError) as caught:
        ingest_own(own_folder, {"sft": None})
    assert len(caught.value.problems) == 1
    assert "sft.jsonl:2: demonstration: it is missing; rows of the sft split need" in caught.value.problems[0]


def test_repeated_prompts_and_leaks_are_rejected_and_counted(own_folder):
    write_own(own_folder, train=[ROW, FREE, FREE | {"prompt_id": "a"}], test=[ROW | {"prompt_id": "b", "answer": "A"}])
    rows, rejected = ingest_own(own_folder, {"train": None, "test": None})
    assert [len(rows[split]) for split in ("train", "test")] == [1, 1]
    same = "nearly the same prompt is in the split "
    assert rejected == {"test": [], "train": [f"leak: {same}'test'", f"duplicate: {same}'train'"]}


def test_a_training_row_cannot_reuse_the_key_of_an_evaluation_row(own_folder):
    write_own(own_folder, train=[FREE | {"prompt_id": "a"}], test=[ROW | {"prompt_id": "a"}])
    with pytest.raises(StudyError, match=r"train.jsonl:1: prompt_id: 'a' belongs to another row of the split 'test'"):
        ingest_own(own_folder, {"train": None, "test": None})


def test_missing_and_short_splits_are_errors(own_folder):
    write_own(own_folder, test=[FREE])
    with pytest.raises(StudyError) as caught:
        ingest_own(own_folder, {"train": None, "sft": None, "test": 5})
    assert caught.value.problems == (
        f"{own_folder}/train.jsonl: missing; add the file, or remove 'train' from data.splits",
        f"{own_folder}/sft.jsonl: missing; add the file, or remove 'sft' from data.splits",
    )
    with pytest.raises(
        StudyError, match=r"data.splits.test: asks for 5 rows, but only 1 are usable; lower it, or null"
    ):
        ingest_own(own_folder, {"test": 5})


def test_the_first_twenty_problems_of_a_split_are_listed_at_once(own_folder):
    write_own(own_folder, test=[ROW | {"answer": "Z", "question": " "}] * 30)
    with pytest.raises(StudyError) as caught:
        ingest_own(own_folder)
    assert len(caught.value.problems) == 21
    assert "test.jsonl:1: question: it is blank; expected text; answer: got 'Z'" in caught.value.problems[0]
    assert caught.value.problems[-1] == "... and 10 more"


def test_the_folder_must_exist(own_folder):
    with pytest.raises(
        StudyError, match=r"data.folder: .*nowhere is not a folder; expected a folder with <split>.jsonl"
    ):
        ingest_own(own_folder / "nowhere")
