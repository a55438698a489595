"""The stage `generate` of two processes: the file of one, and that of an undisturbed job after a rank was killed."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from rlassay.evaluation.generate import plan_batches, run_generate
from rlassay.layout import Layout
from rlassay.records import CompletionRow, read_rows
from tests.evaluation.tiny import NUM_TEST, only
from tests.launcher import Launcher, wait_until
from tests.training.short_run import fresh_layout, load_short
from tests.training.test_shared_jobs import HALF, fork_ranks, ranks_below, start

# Many small batches, so that a kill meets both processes in the middle of their shares. Neither the prompts nor the
# batches divide by two.
ANSWERS: dict[str, Any] = {
    "evaluation__num_samples": 40,
    "evaluation__batch_size": 2,
    "evaluation__max_completion_length": 16,
}
NUM_BATCHES = NUM_TEST * 40 // 2 + (NUM_TEST + 1) // 2
KEPT = "from before the kill"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The completions that one process writes of a policy whose samples differ."""
    folder = tmp_path_factory.mktemp("alone")
    study, layout = load_short(folder, **ANSWERS), fresh_layout(folder / "results")
    policy = only(study, "model")
    run_generate(study, layout, policy, "test")
    batches = plan_batches(list(read_rows(layout.split("test"))), study.evaluation)
    assert (NUM_TEST % 2, len(batches), NUM_BATCHES % 2) == (1, NUM_BATCHES, 1)
    file = layout.completions(policy.folder, "test")
    rows = list(read_rows(file, CompletionRow))
    assert len(rows) == NUM_TEST * 41
    assert len({row.text for row in rows if row.mode == "sampled"}) > NUM_TEST * 30
    return file


def test_two_processes_write_the_file_of_one(alone: Path, launcher: Launcher, tmp_path: Path):
    study, layout = load_short(tmp_path, **HALF, **ANSWERS), fresh_layout(tmp_path / "results")
    policy = only(study, "model").folder
    fork_ranks(launcher, tmp_path, "generate", policy, "--set", "test")

    assert layout.completions(policy, "test").read_bytes() == alone.read_bytes()
    assert files_beside(layout, policy) == {"test.completions.jsonl", "test.sampler.json"}


def test_a_killed_rank_ends_the_job_which_keeps_finished_batches_of_both_and_ends_as_undisturbed(
    alone: Path, launcher: Launcher, tmp_path: Path
):
    study, layout = load_short(tmp_path, **HALF, **ANSWERS), fresh_layout(tmp_path / "results")
    policy = only(study, "model").folder
    parts = parts_of(layout, policy)
    job = start(tmp_path, "generate", "--policy", policy, "--set", "test")
    wait_until(lambda: all(batches_in(part) for part in parts), 180)
    os.kill(ranks_below(job.pid)["1"], signal.SIGKILL)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 1, output
    assert "SIGKILL" in output
    assert not layout.completions(policy, "test").exists()
    done = [batches_in(part) for part in parts]
    assert [[number % 2 for number in each] for each in done] == [[0] * len(done[0]), [1] * len(done[1])]
    assert 0 < len(done[1]) < NUM_BATCHES // 2

    # What both had finished is marked, so that it would show if it were sampled again.
    expected = list(read_rows(alone, CompletionRow))
    for number in [mark(part) for part in parts]:
        expected[2 * number] = expected[2 * number].model_copy(update={"text": KEPT})
    one = Layout(root=tmp_path / "resumed by one")
    shutil.copytree(layout.root, one.root)
    fork_ranks(launcher, tmp_path, "generate", policy, "--set", "test")
    run_generate(study, one, only(study, "model"), "test")
    for resumed in (layout, one):
        assert list(read_rows(resumed.completions(policy, "test"), CompletionRow)) == expected
        assert files_beside(resumed, policy) == {"test.completions.jsonl", "test.sampler.json"}


def files_beside(layout: Layout, policy: str) -> set[str]:
    return {file.name for file in layout.completions(policy, "test").parent.iterdir()}


def parts_of(layout: Layout, policy: str) -> list[Path]:
    """The working files of both processes."""
    part = layout.completions_part(policy, "test")
    return [part, part.with_name(f"{part.name}.rank1")]


def batches_in(part: Path) -> list[int]:
    """The numbers of the finished batches of a working file; a kill may have torn its last line."""
    lines = part.read_text().split("\n") if part.exists() else []
    return [json.loads(line)["batch"] for line in lines if line.endswith("}")]


def mark(part: Path) -> int:
    """Replace the first completion of a working file; the number of its batch."""
    lines = part.read_text().split("\n")
    first = next(index for index, line in enumerate(lines) if line)
    batch = json.loads(lines[first])
    batch["rows"][0]["text"] = KEPT
    lines[first] = json.dumps(batch)
    part.write_text("\n".join(lines))
    return batch["batch"]
