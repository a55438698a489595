"""A data stage that is killed while it keeps the frames of clips ends with the files of an undisturbed run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlassay.config import StudyError, load_study
from rlassay.config.data import ClipPolicy, Conversations
from rlassay.data import clips, run_prepare_data
from rlassay.layout import Layout
from rlassay.records import read_rows
from tests.data.make_clips import grey_frames, write_clip

ROOT = Path(__file__).parents[2]
NUM_CLIPS = 6
# Half of the strip of the fourth clip is on disk when the process is killed.
PROGRAM = """
import sys, time
from pathlib import Path
from rlassay.data import images, run_prepare_data
from rlassay.layout import Layout
from tests.data.test_clip_resume import clips_study

write, written = Path.write_bytes, []

def stuck(path, content):
    if path.suffix == ".png":
        written.append(path)
        if len(written) == 4:
            write(path, content[: len(content) // 2])
            print(path, flush=True)
            time.sleep(600)
    return write(path, content)

Path.write_bytes = stuck
run_prepare_data(clips_study(Path(sys.argv[1])), Layout(root=Path(sys.argv[1]) / "results"))
"""


def clips_study(folder):
    section = Conversations(
        kind="conversations",
        folder=str(folder),
        files={"train": "clips.json", "test": "test.json"},
        splits={"train": None, "test": None},
        clips=ClipPolicy(base_interval=1.0),
    )
    return load_study("digits", "tiny").model_copy(update={"data": section})


def write_records(folder, extra=()):
    def record(number):
        write_clip(folder / f"{number}.mp4", [frame[: 20 + 4 * number] for frame in grey_frames(10 + 10 * number)])
        turns = [{"from": "human", "value": f"<video>\nWhich? {number}"}, {"from": "gpt", "value": f"({number})"}]
        return {"conversations": turns, "video": f"{number}.mp4"}

    records = [record(number) for number in range(NUM_CLIPS)]
    (folder / "test.json").write_text(json.dumps([record(NUM_CLIPS)]))
    (folder / "clips.json").write_text(json.dumps([*records, *extra]))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_half_written_strip_is_never_trusted(tmp_path):
    write_records(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        text=True,
    )
    assert child.stdout is not None
    half = Path(child.stdout.readline().strip())
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    before = half.read_bytes()
    layout, quiet = Layout(root=tmp_path / "results"), Layout(root=tmp_path / "quiet")
    run_prepare_data(clips_study(tmp_path), layout)
    run_prepare_data(clips_study(tmp_path), quiet)
    assert contents(layout.data) == contents(quiet.data)
    whole = half.read_bytes()
    assert (before, len(before)) == (whole[: len(before)], len(whole) // 2)
    # 1 s at one frame a second: 4 frames at least; the longest clip has 6 s.
    assert [len(row.media[0].times) for row in read_rows(layout.split("train"))] == [4, 4, 4, 4, 5, 6]


def test_damaged_and_missing_clips_are_counted_by_reason_before_training(tmp_path):
    turns = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "(1)"}]
    (tmp_path / "torn.mp4").write_bytes(b"torn")
    (tmp_path / "cut.mkv").write_bytes(write_clip(None, fmt="matroska")[:-9])
    names = ("torn.mp4", "absent.mp4", "../outside.mp4", "cut.mkv")
    write_records(tmp_path, [{"conversations": turns, "video": name} for name in names])
    facts = run_prepare_data(clips_study(tmp_path), Layout(root=tmp_path / "results"))
    assert facts["train"].refused == {
        "video: it cannot be decoded": 1,
        "video: it is truncated": 1,
        "video: its path leaves the data root": 1,
        "video: no such file": 1,
    }
    assert {each.detail for each in facts["train"].rejected} == {
        f"{tmp_path}/torn.mp4: Invalid data found when processing input",
        f"{tmp_path}/cut.mkv",
        f"{tmp_path.parent}/outside.mp4",
        f"{tmp_path}/absent.mp4",
    }


def test_rows_with_and_without_media_are_refused_before_any_training(tmp_path):
    turns = [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "7"}]
    write_records(tmp_path, [{"conversations": turns}])
    with pytest.raises(StudyError, match=r"1 of 7 rows read of the split 'train' show neither image nor clip"):
        run_prepare_data(clips_study(tmp_path), Layout(root=tmp_path / "results"))


def test_a_clip_of_several_rows_is_decoded_once(tmp_path, monkeypatch):
    turns = [{"from": "human", "value": "Which one?"}, {"from": "gpt", "value": "(1)"}]
    shutil.copyfile(write_clip(tmp_path / "a.mp4", fps=5), tmp_path / "copy.mp4")
    again = [
        {"conversations": turns, "video": "a.mp4"},
        {"conversations": [{"from": "human", "value": "And in the copy?"}, turns[1]], "video": "copy.mp4"},
        {"conversations": [{"from": "human", "value": "In two frames?"}, turns[1]], "video": "a.mp4"},
    ]
    again[2]["meta"] = {"max_frames": 2}
    write_records(tmp_path, again)
    decoded = []
    sample = clips.sample_frames
    monkeypatch.setattr(clips, "sample_frames", lambda clip, *args: decoded.append(clip) or sample(clip, *args))
    run_prepare_data(clips_study(tmp_path), Layout(root=tmp_path / "results"))
    assert sorted(Path(clip).name for clip in decoded if Path(clip).name in ("a.mp4", "copy.mp4")) == ["a.mp4"] * 2
    one, copy, two = list(read_rows(Layout(root=tmp_path / "results").split("train")))[-3:]
    assert one.media[0].strip == copy.media[0].strip != two.media[0].strip
    assert [len(row.media[0].times) for row in (one, copy, two)] == [8, 8, 2]  # of 8 s
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("a.mp4", "copy.mp4"):
        shutil.copyfile(tmp_path / name, alone / name)
    write_records(alone, [again[1]])
    run_prepare_data(clips_study(alone), Layout(root=alone / "results"))
    # The row is the one that a clip decoded for it alone has, but for the folder.
    (row,) = list(read_rows(Layout(root=alone / "results").split("train")))[-1:]
    assert row.model_dump(exclude={"media"}) == copy.model_dump(exclude={"media"})
    assert row.media[0].model_copy(update={"path": copy.media[0].path}) == copy.media[0]
