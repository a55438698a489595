"""Trackers beside MLflow: what TensorBoard, W&B and the console receive from real training jobs."""

import json
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rlassay.config import Study, StudyError, load_settings
from rlassay.layout import Layout
from rlassay.training.rl import run_rl
from rlassay.training.sft import run_sft
from rlassay.training.state import Run
from tests.evaluation.tiny import layout_with_data, only, tiny_study
from tests.training.short_run import MAX_STEPS, RUN, fresh_layout, load_short, policy_of

NEEDS = "{} is absent (pip install -e .[trackers])"
needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason=NEEDS.format("tensorboard"))
needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason=NEEDS.format("wandb"))
# Those of the two libraries are not ours to fix.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard", "ignore::DeprecationWarning:google")


def logged(layout: Layout, policy: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of a metric in `metrics.jsonl`."""
    lines = [json.loads(line) for line in layout.metrics(policy).read_text().splitlines()]
    return [(line["step"], pytest.approx(line[name], rel=1e-5)) for line in lines]


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) of a scalar, as TensorBoard's own reader finds it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events: Any = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_tracker_that_is_not_installed_is_refused_before_any_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "config.yaml"
    file.write_text("tracking: {report_to: [tensorboard, console, wandb]}")
    monkeypatch.setattr("rlassay.config.checks.machine.find_spec", lambda name: None)
    with pytest.raises(StudyError) as refused:
        load_settings(file)
    for name in ("tensorboard", "wandb"):
        expected = f"tracking.report_to: {name}, but it is not installed; run `pip install {name}`, or leave it out"
        assert expected in str(refused.value)
    assert "console" not in str(refused.value)
    monkeypatch.setattr("rlassay.config.checks.machine.find_spec", lambda name: "found")
    assert load_settings(file).tracking.report_to == ("tensorboard", "console", "wandb")
    file.write_text("tracking: {report_to: [tensorbord]}")
    with pytest.raises(StudyError, match="tensorbord"):
        load_settings(file)


def test_the_console_shows_each_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    study = tiny_study()
    layout = layout_with_data(tmp_path / "quiet")
    run_sft(study, layout, only(study, "sft"))
    assert "grad_norm" not in capsys.readouterr().out
    layout = layout_with_data(tmp_path / "loud")
    run_sft(study, layout, only(study, "sft"), ["console"])
    assert capsys.readouterr().out.count("grad_norm") == 3


@needs_tensorboard
def test_tensorboard_has_each_step_once_also_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    study = tiny_study()
    layout, policy = layout_with_data(tmp_path / "killed"), only(study, "sft")
    with monkeypatch.context() as patched:
        patched.setattr(Run, "finish", _vanish)
        with pytest.raises(KeyboardInterrupt):
            run_sft(study, layout, policy, ["tensorboard"])
    state = layout.state(policy.folder)
    for file in (state / "checkpoints/checkpoint-3").iterdir():  # so that step 3 is trained again
        file.unlink()
    run_sft(study, layout, policy, ["tensorboard"])
    assert len(list((state / "tensorboard").iterdir())) == 2
    assert scalars(state / "tensorboard", "train/loss") == logged(layout, policy.folder, "loss")
    assert [step for step, _ in scalars(state / "tensorboard", "train/loss")] == [1, 2, 3]


@needs_tensorboard
def test_tensorboard_has_the_rewards_of_an_rl_run(tmp_path: Path):
    study, layout = load_short(tmp_path), fresh_layout(tmp_path / "results")
    run_sft(study, layout, only(study, "sft"))
    run_rl(study, layout, policy_of(study), report_to=["tensorboard"])
    found = scalars(layout.state(RUN) / "tensorboard", "train/reward")
    assert found == logged(layout, RUN, "reward")
    assert len(found) == MAX_STEPS


@needs_wandb
def test_wandb_offline_has_each_step_once_also_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each attempt in a process of its own, at whose end W&B finishes its run."""
    layout = layout_with_data(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    study: Study = tiny_study()
    policy = only(study, "sft").folder
    state = layout.state(policy)
    assert _attempt(layout, "run.Run.finish = _vanish") != 0
    for file in (state / "checkpoints/checkpoint-3").iterdir():  # so that step 3 is trained again
        file.unlink()
    assert _attempt(layout, "") == 0

    files = sorted((state / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    records = [record for file in files for record in wandb_records(file)]
    runs = [record.run for record in records if record.HasField("run")]
    assert {(run.project, run.display_name, run.run_group) for run in runs} == {(study.id, policy, "sft")}
    assert {run.run_id for run in runs} == {(state / "wandb/run_id").read_text()}
    steps = [{_key(item): json.loads(item.value_json) for item in record.history.item} for record in records]
    losses = [(step["train/global_step"], step["train/loss"]) for step in steps if "train/loss" in step]
    assert losses == logged(layout, policy, "loss")


def _attempt(layout: Layout, before: str) -> int:
    """Exit status of a warm start that reports to W&B, after the statement `before`."""
    code = [
        "from pathlib import Path",
        "from rlassay.layout import Layout",
        "from rlassay.training import state as run",
        "from rlassay.training.sft import run_sft",
        "from tests.evaluation.tiny import only, tiny_study",
        "from tests.training.test_trackers import _vanish",
        before,
        f"study, layout = tiny_study(), Layout(root=Path({str(layout.root)!r}))",
        "run_sft(study, layout, only(study, 'sft'), ['wandb'])",
    ]
    return subprocess.run([sys.executable, "-c", "\n".join(code)], check=False, timeout=300).returncode


def _key(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def wandb_records(file: Path) -> list[Any]:
    """The records of a `.wandb` file: protobuf in the log format of LevelDB, after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # the rest of a block that no header fits into
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


def _vanish(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
