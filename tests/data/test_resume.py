"""A data stage that is killed or damaged resumes, and writes the bytes of an undisturbed run."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from rlassay.config import StudyError, load_study
from rlassay.config.data import Jsonl, JsonlPrompts
from rlassay.data import run_prepare_data
from rlassay.data.ingest import Ingestor
from rlassay.data.outcomes import Journal
from rlassay.layout import Layout

ROOT = Path(__file__).parents[2]
NUM_ROWS = {"test": 6, "train": 20}
KILLED_AT = 15
"""The training record that the killed process never reads: 6 + 14 outcomes are recorded by then."""
# Prints a line when that record is requested, then waits to be killed.
PROGRAM = """
import sys, time
from rlassay.data import json_records, run_prepare_data
from rlassay.layout import Layout
from tests.data.test_resume import KILLED_AT, prompts
from pathlib import Path

read = json_records.read_records

def stuck(file):
    for number, located in enumerate(read(file), 1):
        if file.stem == "train" and number == KILLED_AT:
            print("here", flush=True)
            time.sleep(600)
        yield located

json_records.read_records = stuck
folder = Path(sys.argv[1])
run_prepare_data(prompts(folder), Layout(root=folder / "results"))
"""


def prompts(folder):
    section = JsonlPrompts(kind="jsonl_prompts", folder=str(folder / "in"), splits=dict.fromkeys(NUM_ROWS))
    return load_study("digits", "tiny").model_copy(update={"data": section})


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((24, 18), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def write_inputs(folder):
    """Records with a picture each; every third training record repeats the prompt before it."""
    (folder / "in").mkdir()
    for split, count in NUM_ROWS.items():
        records = []
        for number in range(count):
            (folder / "in" / f"{split}{number}.png").write_bytes(picture(number + 100 * (split == "train")))
            image = f"{split}{number if number % 3 or split == 'test' else max(0, number - 1)}.png"
            records.append({"prompt": f"What is {image}?", "answer": str(number), "images": [image]})
        (folder / "in" / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def left_behind(inputs):
    """The results folder after `kill -9` before training record KILLED_AT."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(inputs)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "here\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    return inputs / "results"


@pytest.fixture(scope="module")
def undisturbed(inputs):
    """The files of an undisturbed run."""
    layout = Layout(root=inputs / "quiet")
    run_prepare_data(prompts(inputs), layout)
    return contents(layout.data)


@pytest.fixture
def killed(left_behind, tmp_path):
    """A copy of the killed attempt, to resume."""
    shutil.copytree(left_behind, tmp_path / "results")
    return Layout(root=tmp_path / "results")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def ingested(monkeypatch):
    """The split of each example that is ingested, in order."""
    splits = []
    ingest = Ingestor.ingest

    def counting(self, example, split):
        splits.append(split)
        return ingest(self, example, split)

    monkeypatch.setattr(Ingestor, "ingest", counting)
    return splits


def test_a_killed_attempt_is_resumed_and_the_bytes_are_the_same(inputs, killed, undisturbed, ingested):
    assert not killed.data_manifest.exists()
    assert not killed.split("test").exists()  # no file is replaced before all splits are complete
    written = list((killed.data / "images").iterdir())
    assert len(written) == 6 + 10  # of the 14 training records, 3, 6, 9 and 12 (from 0) repeat an earlier prompt
    for path in written:
        os.utime(path, (1, 1))
    run_prepare_data(prompts(inputs), killed)
    assert ingested == ["train"] * (NUM_ROWS["train"] - (KILLED_AT - 1))
    assert contents(killed.data) == undisturbed
    assert {path.stat().st_mtime for path in written} == {1}  # so no image was written again
    assert not killed.data_parts.exists()


def test_without_rules_an_attempt_resumes_with_every_row(inputs, tmp_path, monkeypatch, ingested):
    plain = prompts(inputs)
    rules = {"duplicates": "off", "leaks": "off"}
    study = plain.model_copy(update={"data": plain.data.model_copy(update=rules)})
    quiet, stopped = Layout(root=tmp_path / "quiet"), Layout(root=tmp_path / "stopped")
    assert run_prepare_data(study, quiet)["train"].rows == NUM_ROWS["train"]
    append = Journal.append

    def failing(self, outcome):
        if len(ingested) == sum(NUM_ROWS.values()) + NUM_ROWS["test"] + KILLED_AT:
            raise KeyboardInterrupt
        append(self, outcome)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", failing)
        with pytest.raises(KeyboardInterrupt):
            run_prepare_data(study, stopped)
    ingested.clear()
    run_prepare_data(study, stopped)
    # The outcome of record KILLED_AT was not written.
    assert ingested == ["train"] * (NUM_ROWS["train"] - (KILLED_AT - 1))
    assert contents(stopped.data) == contents(quiet.data)


def torn_line(data):
    journal = data / ".unfinished" / "train.journal"
    journal.write_bytes(journal.read_bytes()[:-20])
    return 1


def flipped_bit(data):
    """In the third of the 14 training outcomes."""
    journal = data / ".unfinished" / "train.journal"
    lines = journal.read_bytes().split(b"\n")
    lines[3] = lines[3].replace(b"train", b"brain", 1)
    journal.write_bytes(b"\n".join(lines))
    return 12


def torn_image(data):
    """The image of the second accepted training row: the third record, since the first two are duplicates."""
    rows = [line for line in (data / ".unfinished" / "train.journal").read_text().splitlines() if "\t" in line]
    image = data / json.loads(rows[1].split("\t")[1])["media"][0]["path"]
    image.write_bytes(image.read_bytes()[:30])
    return 13


def no_journal(data):
    (data / ".unfinished" / "train.journal").unlink()
    return 14


@pytest.mark.parametrize("damage", [torn_line, flipped_bit, torn_image, no_journal])
def test_damaged_outcomes_are_detected_and_redone(inputs, killed, undisturbed, ingested, damage):
    lost = damage(killed.data)
    run_prepare_data(prompts(inputs), killed)
    assert len(ingested) == NUM_ROWS["train"] - (KILLED_AT - 1) + lost
    assert contents(killed.data) == undisturbed


def test_outcomes_from_a_changed_file_are_discarded(tmp_path, monkeypatch, ingested):
    """Training rows are compared with the test rows, so a changed test file affects them too."""
    write_inputs(tmp_path)
    layout, again = Layout(root=tmp_path / "results"), Layout(root=tmp_path / "again")
    with monkeypatch.context() as patched:
        patched.setattr("rlassay.data.prepare.write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_prepare_data(prompts(tmp_path), layout)
    del ingested[:]
    test = tmp_path / "in" / "test.jsonl"
    test.write_text(test.read_text().replace("test1.png?", "test one?"))
    run_prepare_data(prompts(tmp_path), layout)
    assert len(ingested) == NUM_ROWS["test"] + NUM_ROWS["train"]
    run_prepare_data(prompts(tmp_path), again)
    assert contents(layout.data) == contents(again.data)


def interrupted(*_):
    raise KeyboardInterrupt


def test_too_many_invalid_records_discard_the_unfinished_work(tmp_path):
    write_inputs(tmp_path)
    with (tmp_path / "in" / "train.jsonl").open("a") as train:
        train.write("no JSON\n" * 20)
    layout = Layout(root=tmp_path / "results")
    with pytest.raises(StudyError, match=r"26 of 40 records .* because invalid JSON.*train.jsonl:21: Expecting value"):
        run_prepare_data(prompts(tmp_path), layout)
    assert not layout.data_parts.exists()


def test_a_strict_source_reports_an_invalid_row_again_after_a_kill(tmp_path, monkeypatch):
    """The invalid row and all after it are not recorded, so that no later attempt skips it."""
    rows = [{"question": f"What is {n}?", "answer": "" if n == 1 else str(n)} for n in range(4)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = Jsonl(kind="jsonl", folder=str(tmp_path), splits={"test": None})
    study, layout = prompts(tmp_path).model_copy(update={"data": section}), Layout(root=tmp_path / "results")
    with monkeypatch.context() as patched:
        patched.setattr("rlassay.data.ingest.Problems.check", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_prepare_data(study, layout)
    assert len((layout.data_parts / "test.journal").read_text().splitlines()) == 2  # its head, and row 0
    with pytest.raises(StudyError, match=r"test.jsonl:2: answer: it is blank"):
        run_prepare_data(study, layout)


def test_two_processes_do_not_write_the_same_data(tmp_path):
    layout = Layout(root=tmp_path / "results")
    layout.data_parts.mkdir(parents=True)
    with FileLock(layout.data_parts / "lock"), pytest.raises(StudyError, match="another process prepares this data"):
        run_prepare_data(prompts(tmp_path), layout)
    assert (layout.data_parts / "lock").exists()
