"""Output of a training job: metrics, progress, manifests of checkpoints, and other trackers."""

import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback, WandbCallback
from transformers.utils.logging import disable_progress_bar

from rlassay.bar import progress_bar
from rlassay.config.settings import Trackers
from rlassay.files import replacing, write_json
from rlassay.layout import checkpoint
from rlassay.ranks import PROGRESS, is_main
from rlassay.training.checkpoints import seal
from rlassay.training.process import wait_for_all

if TYPE_CHECKING:
    from rlassay.training.state import Run

ARGUMENTS = "trl_arguments.json"


class JobCallback(TrainerCallback):
    """Appends each logged step to `metrics.jsonl`, moves the bar and seals checkpoints.

    It does so on the main process. First it writes all arguments of TRL's trainer, including defaults, to
    `trl_arguments.json`. On all processes it reports progress to the launcher, which ends a job without any.

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
        self._watched = ExitStack()
        self._step_seconds: list[float] = []
        disable_progress_bar()  # the library's bars over weight shards would break up this one

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._watched.enter_context(PROGRESS.watched())
        if state.is_world_process_zero:
            write_json(self.metrics.with_name(ARGUMENTS), args.to_dict())
            self.bar = progress_bar(self.title, state.max_steps, "step", done=state.global_step)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        PROGRESS.finish_step()
        self._step_seconds.append(time.perf_counter() - self._began)
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        PROGRESS.finish_step()

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
        self._watched.close()
        if self.bar is not None:
            self.bar.close()


class KeepIntermediate(TrainerCallback):
    """Saves the weights every `every` steps before the last one, for the held-out curve; training does not wait.

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
    """`value`, or None when it is NaN or infinite, which JSON cannot represent."""
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


def add_trackers(trainer: Any, names: Trackers, run: "Run", study: str) -> None:
    """Add the trackers' callbacks to a trainer, and drop the printer of transformers.

    Only the main process has trackers. TensorBoard and W&B write into `state/tensorboard/` and `state/wandb/`, which a
    fresh start removes with the rest of `state/`; a resumed job appends to them and logs no step twice. On the console
    each step's metrics are printed, into the job's log.

    Args:
        trainer: any trainer of transformers; its `run_name` becomes the run's name in W&B.
        names: the trackers.
        run: the job, with its folder and the step from which it resumes.
        study: the study's id, the project in W&B.
    """
    trainer.remove_callback(PrinterCallback)  # `JobCallback` replaces it, unless the tracker `console` is named
    if not is_main():
        return
    trainer.args.run_name = run.plan.policy
    make = {"tensorboard": _tensorboard, "wandb": _wandb, "console": _console}
    for name in names:
        trainer.add_callback(make[name](run, study))


def _tensorboard(run: "Run", study: str) -> TensorBoardCallback:
    from torch.utils.tensorboard import SummaryWriter

    # A killed attempt may have logged steps after the checkpoint, which this one logs again.
    purged = run.resumed_step + 1 if run.resumed_step else None
    return TensorBoardCallback(SummaryWriter(str(run.state / "tensorboard"), purge_step=purged))


def _wandb(run: "Run", study: str) -> WandbCallback:
    folder = run.state / "wandb"
    folder.mkdir(exist_ok=True)
    chosen = {"WANDB_PROJECT": study, "WANDB_DIR": str(run.state), "WANDB_RESUME": "allow"}
    chosen |= {"WANDB_RUN_GROUP": run.plan.arm or run.plan.stage, "WANDB_RUN_ID": _kept_id(folder / "run_id")}
    for name, value in chosen.items():
        os.environ.setdefault(name, value)
    return _ResumedWandb(folder / "last_step")


class _ResumedWandb(WandbCallback):
    """W&B's callback without the steps that an earlier attempt of the job has logged.

    A killed attempt may have logged steps after the checkpoint, which this one trains again to the same values. W&B
    cannot remove logged steps, and offline cannot list them.
    """

    def __init__(self, last_step: Path) -> None:
        """`last_step` is the file that keeps the last logged step for the next attempt."""
        super().__init__()
        self._file = last_step
        self._before = int(last_step.read_text()) if last_step.exists() else 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.global_step <= self._before:
            return
        # transformers leaves the parameters untyped
        super().on_log(args, state, control, model=model, logs=logs, **kwargs)  # pyright: ignore[reportUnknownMemberType]
        with replacing(self._file) as unfinished:
            unfinished.write_text(str(state.global_step), encoding="utf-8")


def _kept_id(path: Path) -> str:
    """The id in a file; creates id and file if the file is absent."""
    if not path.exists():
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _console(run: "Run", study: str) -> PrinterCallback:
    return PrinterCallback()
