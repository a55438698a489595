import json
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from rlassay.ranks import PROGRESS
from rlassay.training.checkpoints import flaw
from rlassay.training.job_callback import JobCallback, finite, keep_until


def lines(path: Path) -> list[dict[str, float | None]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_logged_step_is_one_line_with_null_for_values_that_are_not_finite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    callback = JobCallback(tmp_path / "metrics.jsonl", "rl base seed 1")
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    state, control = TrainerState(max_steps=2), TrainerControl()
    callback.on_train_begin(args, state, control)
    assert PROGRESS._watched == 1
    for step in (1, 2):
        callback.on_step_begin(args, state, control)
        state.global_step = step
        callback.on_step_end(args, state, control)
        callback.on_log(args, state, control, logs={"loss": 0.5 / step, "reward": float("nan")})
    callback.on_log(args, state, control, logs={"train_runtime": 3.0, "train_loss": 0.3})
    callback.on_train_end(args, state, control)
    assert PROGRESS._watched == 0
    written = lines(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["loss"], line["reward"]) for line in written] == [(1, 0.5, None), (2, 0.25, None)]
    assert all(0 <= line["time/step"] < 1 for line in written)
    shown = capsys.readouterr().err
    assert "rl base seed 1" in shown
    assert "2/2" in shown
    assert "\r" not in shown


def test_a_saved_checkpoint_is_sealed(tmp_path: Path):
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "model.safetensors").write_bytes(b"weights")
    callback = JobCallback(tmp_path / "metrics.jsonl", "title")
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    callback.on_save(args, TrainerState(global_step=7), TrainerControl())
    assert flaw(tmp_path / "checkpoint-7") is None


def test_lines_after_the_resumed_step_and_torn_lines_are_dropped(tmp_path: Path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st\xff')
    keep_until(metrics, 2)
    assert lines(metrics) == [{"step": 1}, {"step": 2}]
    keep_until(metrics, 0)
    assert metrics.read_text() == ""
    keep_until(tmp_path / "absent.jsonl", 2)
    assert not (tmp_path / "absent.jsonl").exists()


@pytest.mark.parametrize(("value", "expected"), [(1.5, 1.5), (float("inf"), None), (float("nan"), None), (None, None)])
def test_finite(value: float | None, expected: float | None):
    assert finite(value) == expected
