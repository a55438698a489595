"""Rows of one's own: what is accepted, and what every kind of mistake is answered with."""

import io
import json
import os

import pytest
from PIL import Image

from rlassay.config import StudyError
from rlassay.config.data import Jsonl
from rlassay.data.identity import content_id
from tests.data import taking

ROW = {"question": "Which animal?", "answer": "B", "choices": ["cat", "dog"], "media": [{"path": "red.png"}]}
FREE = {"question": "Who wrote it?", "answer": "Sappho"}


def png(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (5, 3), colour).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "red.png").write_bytes(png())
    (folder / "blue.png").write_bytes(png("blue"))
    return folder


def write(folder, **splits):
    for split, rows in splits.items():
        lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
        (folder / f"{split}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def take(folder, splits=None):
    section = Jsonl(kind="jsonl", folder=str(folder), splits=splits or {"test": None})
    return taking.take(section, folder.parent)


def test_rows_are_taken_with_their_images(folder):
    given = ROW | {"prompt_id": "q-17", "meta": {"source": "zoo", "year": 1931, "hard": True}}
    write(folder, train=[given, FREE], sft=[ROW | {"question": "哪个动物?", "demonstration": "B"}])
    rows, refused = take(folder, {"train": None, "sft": None})
    first, second = rows["train"]
    assert (first.prompt_id, first.choices, first.meta["year"]) == ("q-17", ("cat", "dog"), 1931)
    assert (folder.parent / "out" / first.media[0].path).read_bytes() == png()
    assert (second.answer, second.choices, second.media) == ("Sappho", (), ())
    assert second.prompt_id == content_id(second)
    assert rows["sft"][0].media == first.media
    assert refused == {"train": [], "sft": []}


def test_a_limit_takes_the_head_and_does_not_read_on(folder):
    write(folder, test=[FREE, ROW, b"this line is never read"])
    assert [row.answer for row in take(folder, {"test": 2})[0]["test"]] == ["Sappho", "B"]


def test_images_may_lie_in_folders_below_the_root(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "blue.png").write_bytes(png("blue"))
    write(folder, test=[ROW | {"media": [{"path": "deep/../deep/blue.png"}]}])
    assert take(folder)[0]["test"][0].media[0].path.startswith("images/")


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
        "test.jsonl:1: choices: 'cat' stands twice, .* make them differ",
    ),
    "answer not among the choices": (
        changed(answer="C"),
        "test.jsonl:1: answer: got 'C', which is not among the choices; expected a letter A/B$",
    ),
    "answer is an option's text": (changed(answer="dog"), "answer: got 'dog', .* expected a letter A/B; write 'B'"),
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
def test_every_mistake_is_named(folder, rows, message):
    (folder / "broken.png").write_bytes(png()[:40])
    Image.new("RGB", (5, 3)).save(folder / "odd.tiff")
    (folder.parent / "outside.png").write_bytes(png())
    os.symlink(folder.parent / "outside.png", folder / "link.png")
    write(folder, test=rows)
    with pytest.raises(StudyError, match=message):
        take(folder)


def test_a_demonstration_is_needed_for_sft(folder):
    write(folder, sft=[ROW | {"demonstration": "<answer>B</answer>"}, ROW | {"question": "And now?"}])
    with pytest.raises(StudyError) as caught:
        take(folder, {"sft": None})
    assert len(caught.value.problems) == 1
    assert "sft.jsonl:2: demonstration: it is missing; rows of the sft split need" in caught.value.problems[0]


def test_repeated_prompts_and_leaks_are_left_out_and_counted(folder):
    write(folder, train=[ROW, FREE, FREE | {"prompt_id": "a"}], test=[ROW | {"prompt_id": "b", "answer": "A"}])
    rows, refused = take(folder, {"train": None, "test": None})
    assert [len(rows[split]) for split in ("train", "test")] == [1, 1]
    same = "nearly the same prompt stands in the split "
    assert refused == {"test": [], "train": [f"leak: {same}'test'", f"duplicate: {same}'train'"]}


def test_a_key_of_an_evaluation_row_cannot_be_a_training_row_s_too(folder):
    write(folder, train=[FREE | {"prompt_id": "a"}], test=[ROW | {"prompt_id": "a"}])
    with pytest.raises(StudyError, match=r"train.jsonl:1: prompt_id: 'a' belongs to another row of the split 'test'"):
        take(folder, {"train": None, "test": None})


def test_splits_that_are_missing_or_too_short(folder):
    write(folder, test=[FREE])
    with pytest.raises(StudyError) as caught:
        take(folder, {"train": None, "sft": None, "test": 5})
    assert caught.value.problems == (
        f"{folder}/train.jsonl: missing; add the file, or remove 'train' from data.splits",
        f"{folder}/sft.jsonl: missing; add the file, or remove 'sft' from data.splits",
    )
    with pytest.raises(
        StudyError, match=r"data.splits.test: asks for 5 rows, but only 1 are usable; lower it, or null"
    ):
        take(folder, {"test": 5})


def test_all_problems_of_a_split_are_listed_at_once_up_to_twenty(folder):
    write(folder, test=[ROW | {"answer": "Z", "question": " "}] * 30)
    with pytest.raises(StudyError) as caught:
        take(folder)
    assert len(caught.value.problems) == 21
    assert "test.jsonl:1: question: it is blank; expected text; answer: got 'Z'" in caught.value.problems[0]
    assert caught.value.problems[-1] == "... and 10 more"


def test_the_folder_must_exist(folder):
    with pytest.raises(StudyError, match=r"data.folder: .*nowhere is no folder; expected one that holds <split>.jsonl"):
        take(folder / "nowhere")
