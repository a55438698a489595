"""Everything of a training job that survives a kill; shared by the SFT and the RL stage.

Files of `<policy>/state/`, written by the one process that holds the lock:

    lock              flock; freed by the kernel however the process ends
    run.json          what runs here; see below
    metrics.jsonl     one line per logged step
    checkpoints/      checkpoint-<step>/, each with a manifest that is written last
    rollouts/         step<n>.parquet: every completion of a step (RL)
    tokens/           step<n>.parquet: some completions of each step, token by token (RL)
    weights/          the trained policy, written once, by rename
    COMPLETE          the job finished; with it present and the sentinel gone, the user asked for a rerun

`run.json`: {"policy", "stage", "arm", "seed", "max_steps", "gpus", "fingerprint", "inputs", "pid", "host", "started",
"ended", "status", "error", "attempts": [{"step", "started", "ended"}]}. `status` is "running", "finished", "killed"
(SIGTERM or Ctrl-C) or "failed" (any other exception, with its text in `error`). After `kill -9` it still says
"running" while nobody holds the lock (`rlassay.progress.is_held`). Times are unix seconds; `step` is where the attempt
started from.
"""

import os
import platform
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path, PurePath
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, cast

import psutil
from filelock import FileLock, Timeout

from rlassay.files import read_json, sha256, write_json
from rlassay.layout import CHECKPOINTS, COMPLETE, LOCK, RUN_RECORD, WEIGHT_FILES, WEIGHTS, Layout, checkpoint_step
from rlassay.training.checkpoints import newest_sound

# MERGED FROM training.refused: Why a job may decline to run.


class RefusedError(RuntimeError):
    """A job cannot run here and now; the message says why, and what to do about it."""


class RunBusyError(RefusedError):
    """Another process is training in this run directory."""


# MERGED FROM training.lock: One process per run directory, and signals that end it in good order.

SECONDS_FOR_A_PROBE = 2.0  # `rlassay.progress.is_held` takes the lock for an instant


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the lock of a `state/` folder, or raise RunBusyError naming pid and host of its holder.

    The kernel frees it however the process ends, `kill -9` included.
    """
    lock = FileLock(state / LOCK, timeout=SECONDS_FOR_A_PROBE)
    try:
        lock.acquire()
    except Timeout:
        holder = read_json(state / RUN_RECORD) or {}
        who = f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}"
        raise RunBusyError(
            f"{state.parent} is in use by {who}: another Snakemake, or a job that outlived one. "
            "Wait for it to finish or stop it, then run the same command again."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C into SystemExit 143 and 130, so that a job can note its status before it goes."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# MERGED FROM training.hardware: What the machine gives a job, and how much of it the job took.

BYTES_PER_MB = 2**20


def require_gpus(declared: int) -> None:
    """Refuse to train with fewer GPUs than the study declares; Snakemake scales requests down without a word.

    Errors: RefusedError naming both counts.
    """
    import torch

    visible = torch.cuda.device_count()
    if visible < declared:
        raise RefusedError(
            f"the study declares gpus: {declared}, but this job sees {visible}. Raise the cap "
            "(`resources: gpu=` in profiles/default/profile.yaml), free a device, or lower `gpus` in the study."
        )


def peak_memory_mb() -> float:
    """Peak memory of this process in MiB: of all its GPUs where it used any, otherwise resident memory."""
    import torch

    on_gpus = sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))
    if on_gpus:
        return on_gpus / BYTES_PER_MB
    # Linux counts kibibytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / BYTES_PER_MB


# MERGED FROM training.workflow_process: Who started a job.


def workflow_process() -> psutil.Process | None:
    """The nearest Snakemake above this process; None for a job that was started by hand."""
    for ancestor in psutil.Process().parents():
        try:
            if any(PurePath(part).name == "snakemake" for part in ancestor.cmdline()[:3]):
                return ancestor
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    return None


# MERGED FROM training.state: Everything of a training job that survives a kill; shared by the SFT and the RL
# stage. Files of `<policy>/state/`, written by the one process that holds the lock: lock flock; freed by the
# kernel however the process ends run.json what runs here; see below metrics.jsonl one line per logged step
# checkpoints/ checkpoint-<step>/, each with a manifest that is written last rollouts/ step<n>.parquet: ever

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

VERSIONED = ("torch", "transformers", "trl", "rlassay")


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a training job is about to do; `fingerprint` and `inputs` together identify its result."""

    policy: str
    """Policy folder relative to the study root."""
    stage: Literal["sft", "rl"]
    """Which stage trains it."""
    arm: str | None
    """The arm; None for a warm start, which arms share."""
    seed: int
    """Seed of shuffling and sampling."""
    max_steps: int
    """Optimiser steps to do."""
    gpus: int
    """GPUs that the study declares."""
    fingerprint: str
    """Hex id of the configuration."""
    inputs: dict[str, str]
    """Digests of what it reads besides: code, rows, warm start."""


class Run:
    """One training job in its locked run directory; made by `open_run`."""

    def __init__(self, layout: Layout, plan: RunPlan) -> None:
        self.plan = plan
        self.folder = layout.root / plan.policy
        self.state = layout.state(plan.policy)
        self.metrics = layout.metrics(plan.policy)
        self.rollouts = layout.rollouts(plan.policy)
        self.tokens = layout.tokens(plan.policy)
        self.manifest = layout.train_manifest(plan.policy, plan.stage)
        self.checkpoints = self.state / CHECKPOINTS
        self.weights = self.state / WEIGHTS
        self.complete = self.state / COMPLETE
        self.finished = False
        """True when the result is already there; then there is nothing to do."""
        self.resume_from: str | None = None
        """Path of the checkpoint to hand to `Trainer.train`, or None to start from step 0."""
        self._attempts: list[dict[str, Any]] = []
        self._workflow = workflow_process()

    @property
    def resumed_step(self) -> int:
        """Steps that earlier attempts have done and this one keeps."""
        return 0 if self.resume_from is None else checkpoint_step(Path(self.resume_from))

    def callback(self) -> "TrainerCallback":
        """Metrics file, progress bar and checkpoint seals, for any transformers trainer."""
        from rlassay.training.job_callback import JobCallback

        arm = "" if self.plan.arm is None else f" {self.plan.arm}"
        return JobCallback(self.metrics, f"{self.plan.stage}{arm} seed {self.plan.seed}")

    def prepare(self) -> None:
        """Decide between nothing to do, resuming and starting afresh, and bring the directory to that state."""
        previous = read_json(self.state / RUN_RECORD) or {}
        choice = _choose(read_json(self.manifest), self.complete.exists(), previous, self.plan)
        if choice == "finished":
            self.complete.touch()
            self.finished = True
            if previous and previous["status"] != "finished":  # killed between the sentinel and this note
                self._attempts = _closed(previous["attempts"], self.metrics)
                self.record("finished")
            return
        self.manifest.unlink(missing_ok=True)
        if choice == "fresh":
            _wipe(self.state)
        else:
            self._attempts = _closed(previous.get("attempts", []), self.metrics)
            self.resume_from = newest_sound(self.checkpoints, self.plan.max_steps)
        self._drop_after_resumed_step()
        self._attempts.append({"step": self.resumed_step, "started": time.time(), "ended": None})
        self.record("running")

    def record(self, status: str, error: str | None = None) -> None:
        """Write `run.json`; any status but "running" ends this attempt."""
        ended = None if status == "running" else time.time()
        self._attempts[-1]["ended"] = ended
        about = {"pid": os.getpid(), "host": platform.node(), "started": self._attempts[-1]["started"], "ended": ended}
        report = {"status": status, "error": error, "attempts": self._attempts}
        write_json(self.state / RUN_RECORD, asdict(self.plan) | about | report)

    def finish(self, trainer: "Trainer", generated_tokens: int = 0) -> None:
        """Save the weights, prove the steps, write the sentinel and then COMPLETE.

        A job that has outlived its Snakemake keeps its checkpoints instead of the COMPLETE: the next Snakemake does not
        know that it ended well and removes the sentinel, which is then no wish to train again from step 0.

        Errors: RuntimeError when the trainer has not done all its steps.
        """
        steps = trainer.state.global_step
        if steps != self.plan.max_steps:
            raise RuntimeError(f"{self.plan.policy}: training stopped at step {steps} of {self.plan.max_steps}")
        unfinished = self.weights.with_name(f"{WEIGHTS}.unfinished")
        trainer.save_model(str(unfinished))
        (unfinished / "training_args.bin").unlink(missing_ok=True)
        shutil.rmtree(self.weights, ignore_errors=True)
        unfinished.replace(self.weights)
        write_json(self.manifest, self._proof(steps, generated_tokens) | {"hub_commit": _hub_commit(trainer)})
        if self._workflow is None or self._workflow.is_running():
            self.complete.touch()
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def _proof(self, steps: int, generated_tokens: int) -> dict[str, Any]:
        now = time.time()
        return {
            "fingerprint": self.plan.fingerprint,
            "inputs": self.plan.inputs,
            "steps": steps,
            "max_steps": self.plan.max_steps,
            "weights": str(self.weights.relative_to(self.folder)),
            "sha256": {path.name: sha256(path) for path in sorted(self.weights.glob(WEIGHT_FILES))},
            "seconds": sum((attempt["ended"] or now) - attempt["started"] for attempt in self._attempts),
            "generated_tokens": generated_tokens,
            "resumes": [{"step": attempt["step"], "time": attempt["started"]} for attempt in self._attempts[1:]],
            "gpus": self.plan.gpus,
            "versions": {name: version(name) for name in VERSIONED},
            "peak_memory_mb": peak_memory_mb(),
        }

    def _drop_after_resumed_step(self) -> None:
        from rlassay.training.job_callback import keep_until
        from rlassay.training.rollouts import drop_shards_after

        keep_until(self.metrics, self.resumed_step)
        for folder in (self.rollouts, self.tokens):
            drop_shards_after(folder, self.resumed_step)


def _hub_commit(trainer: "Trainer") -> str | None:
    """The commit that transformers loaded the model from; None for a folder, or a model that is built here."""
    config: Any = cast(Any, trainer.model).config
    return getattr(config, "_commit_hash", None)


@contextmanager
def open_run(layout: Layout, plan: RunPlan) -> Iterator[Run]:
    """Lock the run directory, choose what to do, and record how the job ended.

        with open_run(layout, plan) as run:
            if not run.finished:
                trainer = ...  # output_dir=run.checkpoints, save_total_limit=2; trainer.add_callback(run.callback())
                trainer.train(resume_from_checkpoint=run.resume_from)
                run.finish(trainer)

    SIGTERM and Ctrl-C become SystemExit 143 and 130, so that the status is written before the process goes.

    Errors: RunBusyError naming pid and host of the process that holds the directory.
    """
    run = Run(layout, plan)
    run.state.mkdir(parents=True, exist_ok=True)
    with locked(run.state), signals_as_exceptions():
        run.prepare()
        if run.finished:
            yield run
            return
        try:
            yield run
        except (SystemExit, KeyboardInterrupt):
            run.record("killed")
            raise
        except BaseException as error:
            run.record("failed", f"{type(error).__name__}: {error}")
            raise
        run.record("finished")


def _choose(
    manifest: dict[str, Any] | None, complete: bool, previous: dict[str, Any], plan: RunPlan
) -> Literal["finished", "resume", "fresh"]:
    if manifest is not None and _same(manifest, plan):
        return "finished"
    # COMPLETE without its sentinel: the user removed the result (`snakemake -R`) and wants it made again from step 0.
    return "fresh" if complete or not _same(previous, plan) else "resume"


def _same(written: dict[str, Any], plan: RunPlan) -> bool:
    return written.get("fingerprint") == plan.fingerprint and written.get("inputs") == plan.inputs


def _wipe(state: Path) -> None:
    (state / RUN_RECORD).unlink(missing_ok=True)  # first, so that a kill in between still ends in a fresh start
    for path in state.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _closed(attempts: list[dict[str, Any]], metrics: Path) -> list[dict[str, Any]]:
    """An attempt that was killed outright ended when it last wrote its metrics."""
    last_sign = metrics.stat().st_mtime if metrics.exists() else 0.0
    return [{**each, "ended": each["ended"] or max(last_sign, each["started"])} for each in attempts]
