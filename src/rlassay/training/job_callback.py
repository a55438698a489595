"""Output of a running training job: `metrics.jsonl`, the progress bar, and the manifest of each checkpoint."""

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from rlassay.bar import progress_bar
from rlassay.files import replacing
from rlassay.layout import checkpoint
from rlassay.training.checkpoints import seal
from rlassay.training.process import wait_for_all


class JobCallback(TrainerCallback):
    """Appends one line per logged step to `metrics.jsonl`, moves the bar and seals checkpoints, on the main process.

    A line is one flat JSON object, `{"step", "time", <TRL's metric names>...}`; a value that is not finite becomes
    null. It is flushed before training continues, so that a kill loses at most the line being written. `time/step` is
    added: seconds per optimiser step since the previous line, including generation, without data loading, logging and
    saving.
    """

    def __init__(self, metrics: Path, title: str) -> None:
        self.metrics = metrics
        self.title = title
        self.bar: tqdm[Any] | None = None
        self._began = 0.0
        self._step_seconds: list[float] = []
        disable_progress_bar()  # the library's bars over weight shards would break up this one

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self.bar = progress_bar(self.title, state.max_steps, "step", done=state.global_step)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._step_seconds.append(time.perf_counter() - self._began)
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:  # the summary of the whole run
            return
        metrics = {name: finite(value) for name, value in logs.items()}
        metrics["time/step"] = sum(self._step_seconds) / len(self._step_seconds)
        self._step_seconds.clear()
        line = {"step": state.global_step, "time": time.time()} | metrics
        with self.metrics.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
        if self.bar is not None:
            shown = {name: f"{logs[name]:.3g}" for name in ("reward", "loss") if isinstance(logs.get(name), float)}
            bar: Any = self.bar  # tqdm's stubs leave a parameter open
            bar.set_postfix(shown, refresh=False)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        wait_for_all()  # each process writes files of its own, such as the states of its random numbers
        if state.is_world_process_zero:
            seal(checkpoint(Path(str(args.output_dir)), state.global_step))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.close()


class KeepIntermediate(TrainerCallback):
    """Saves the weights every `every` steps before the last one, for the held-out curve; training goes on at once.

    A folder gets its name when it is complete, so that a kill leaves none that is half written.
    """

    def __init__(self, folder: Path, every: int, save: Callable[[str], None]) -> None:
        self.folder = folder
        self.every = every
        self.save = save

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every or state.global_step >= state.max_steps:
            return
        target = checkpoint(self.folder, state.global_step)
        unfinished = target.with_name("unfinished")
        self.save(str(unfinished))
        wait_for_all()
        if state.is_world_process_zero:
            (unfinished / "training_args.bin").unlink(missing_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            unfinished.replace(target)


def finite(value: float | None) -> float | None:
    """`value`, or None when it is NaN or infinite, which JSON cannot hold."""
    return value if value is not None and math.isfinite(value) else None


def keep_until(metrics: Path, step: int) -> None:
    """Drop the lines of `metrics.jsonl` after `step`, and a torn last line; the file is replaced by rename."""
    if not metrics.exists():
        return
    kept: list[str] = []
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            logged = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue
        if logged <= step:
            kept.append(line + "\n")
    with replacing(metrics) as unfinished:
        unfinished.write_text("".join(kept), encoding="utf-8")
