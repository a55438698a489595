"""The state of an SFT or RL training job that survives a kill.

Files of `<policy>/state/`, written by the one process that holds the lock:

    lock              freed however the process ends (`rlassay.locks`)
    run.json          record of the job; see below
    metrics.jsonl     one line per logged step
    trl_arguments.json    all arguments of TRL's trainer
    checkpoints/      checkpoint-<step>/, each with a manifest that is written last
    intermediate/     checkpoint-<step>/: weights for the held-out curve, until they are evaluated (RL)
    rollouts/         step<n>.parquet: every completion of a step (RL)
    tokens/           step<n>.parquet: some completions of each step, token by token (RL)
    weights/          the trained policy, written once, by rename
    COMPLETE          the job finished; without a manifest beside the folder, the user requested a rerun, or the
                      cluster has started the job again

`run.json`: {"policy", "stage", "arm", "seed", "max_steps", "gpus", "fingerprint", "inputs", "libraries", "pid", "host",
"started", "ended", "status", "error", "attempts": [{"step", "started", "ended"}]}. `status` is "running", "finished",
"collapsed" (ended early by its guard, for the reason in `error`; its result is that of a finished job), "killed"
(SIGTERM or Ctrl-C) or "failed" (any other exception, with its text in `error`). After `kill -9` it is still "running",
but no process holds the lock (`rlassay.progress.is_held`). On Slurm it also has "slurm_job". Times are unix seconds;
`step` is the step from which the attempt started. One that waited for its vLLM server also has "waited", in seconds.
"""

import os
import platform
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from rlassay.config.fingerprints import package_version
from rlassay.files import read_json, sha256, write_json
from rlassay.layout import (
    CHECKPOINTS,
    COMPLETE,
    INTERMEDIATE,
    LOCK,
    RUN_RECORD,
    WEIGHT_FILES,
    WEIGHTS,
    Layout,
    checkpoint_step,
    checkpoints,
)
from rlassay.progress import work_began
from rlassay.ranks import PROGRESS, is_main
from rlassay.training.checkpoints import newest_sound
from rlassay.training.process import (
    leave_processes,
    locked,
    of_main,
    peak_memory_mb,
    signals_as_exceptions,
    workflow_process,
)

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

    from rlassay.training.algorithms.collapse_guard import Collapse

VERSIONED = ("torch", "transformers", "trl", "rlassay")


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """Plan of a training job; `fingerprint` and `inputs` together identify its result."""

    policy: str
    """Policy folder relative to the study root."""
    stage: Literal["sft", "rl"]
    """The stage that trains it."""
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
    """Digests of its other inputs: code, rows, warm start."""
    libraries: tuple[str, ...] = ()
    """Libraries that compute its result besides those of every job: `vllm`, `deepspeed`."""


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
        """True when the result already exists and there is nothing to do."""
        self.resume_from: str | None = None
        """Path of the checkpoint for `Trainer.train`, or None to start from step 0."""
        self.collapse: dict[str, Any] | None = None
        """Step and reason if the job ended early because its policy collapsed."""
        self._attempts: list[dict[str, Any]] = []
        self._workflow = workflow_process()

    @property
    def resumed_step(self) -> int:
        """Steps of earlier attempts that this one keeps."""
        return 0 if self.resume_from is None else checkpoint_step(Path(self.resume_from))

    def callback(self) -> "TrainerCallback":
        """A callback for any transformers trainer: metrics file, progress bar, checkpoint manifests."""
        from rlassay.training.job_callback import JobCallback

        arm = "" if self.plan.arm is None else f" {self.plan.arm}"
        return JobCallback(self.metrics, f"{self.plan.stage}{arm} seed {self.plan.seed}")

    def prepare(self) -> None:
        """Find out where the job begins, and prepare its directory.

        It is finished, resumes, or starts from step 0.
        """
        if is_main():
            self._decide()
        self.finished, self.resume_from = of_main((self.finished, self.resume_from))

    def _decide(self) -> None:
        previous = read_json(self.state / RUN_RECORD) or {}
        self._restore_manifest(previous)
        choice = _choose(read_json(self.manifest), self.complete.exists(), previous, self.plan)
        if choice == "finished":
            self.complete.touch()
            self.finished = True
            if previous and previous["status"] not in ("finished", "collapsed"):  # killed between manifest and record
                self._attempts = _closed(previous["attempts"], self.metrics)
                self.collapse = (read_json(self.manifest) or {}).get("collapsed")
                self.record_end()
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

    def _restore_manifest(self, previous: dict[str, Any]) -> None:
        """Restore the manifest of a finished job that its cluster has started again.

        A cluster does so after losing a node, for example. Snakemake removes the manifest before each start, which must
        not look like the user's request for a rerun.
        """
        finished = read_json(self.complete)
        if finished is not None and not self.manifest.exists() and _cluster_job().items() & previous.items():
            write_json(self.manifest, finished)

    def record(self, status: str, error: str | None = None) -> None:
        """Write `run.json`; any status but "running" ends this attempt."""
        if not is_main():
            return
        ended = None if status == "running" else time.time()
        self._attempts[-1]["ended"] = ended
        about = {"pid": os.getpid(), "host": platform.node(), "started": self._attempts[-1]["started"], "ended": ended}
        report = {"status": status, "error": error, "attempts": self._attempts}
        write_json(self.state / RUN_RECORD, asdict(self.plan) | about | report | _cluster_job())

    @contextmanager
    def waiting(self) -> Generator[None, None, None]:
        """Leave the time of the body out of the job's seconds.

        In the body the main process waits for others.
        """
        attempt, began = self._attempts[-1], time.time()
        try:
            yield
        finally:
            attempt["waited"] = time.time() - began
            self.record("running")

    def record_end(self) -> None:
        """Write `run.json` for a job with a result: finished, or collapsed."""
        if self.collapse is None:
            self.record("finished")
        else:
            self.record("collapsed", f"collapsed at step {self.collapse['step']}: {self.collapse['reason']}")

    def finish(self, trainer: "Trainer", generated_tokens: int = 0, collapse: "Collapse | None" = None) -> None:
        """Save the weights, check the number of steps, write the manifest and then COMPLETE.

        A job whose policy has collapsed has a result too, the weights at that step; its manifest states the collapse.

        A job that has outlived its Snakemake keeps its checkpoints and writes no COMPLETE: the next Snakemake does not
        know that the job succeeded and removes the manifest, which must not look like a request for a rerun.

        Errors: RuntimeError when the trainer has not done all its steps.
        """
        steps = trainer.state.global_step
        self.collapse = None if collapse is None else asdict(collapse)
        if steps != self.plan.max_steps and collapse is None:
            raise RuntimeError(f"{self.plan.policy}: training stopped at step {steps} of {self.plan.max_steps}")
        with PROGRESS.watched():  # all processes take part
            trainer.save_model(str(_unfinished(self.weights)))
        if is_main():
            self._publish(trainer, generated_tokens)

    def _publish(self, trainer: "Trainer", generated_tokens: int) -> None:
        unfinished = _unfinished(self.weights)
        (unfinished / "training_args.bin").unlink(missing_ok=True)
        shutil.rmtree(self.weights, ignore_errors=True)
        unfinished.replace(self.weights)
        content = self._manifest_content(trainer.state.global_step, generated_tokens)
        content |= {"hub_commit": _hub_commit(trainer)}
        content |= {} if self.collapse is None else {"collapsed": self.collapse}
        write_json(self.manifest, content)
        if self._workflow is None or self._workflow.is_running():
            write_json(self.complete, content)
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def _manifest_content(self, steps: int, generated_tokens: int) -> dict[str, Any]:
        now = time.time()
        return {
            "fingerprint": self.plan.fingerprint,
            "inputs": self.plan.inputs,
            "steps": steps,
            "max_steps": self.plan.max_steps,
            "weights": str(self.weights.relative_to(self.folder)),
            "sha256": {path.name: sha256(path) for path in sorted(self.weights.glob(WEIGHT_FILES))},
            "seconds": sum((attempt["ended"] or now) - work_began(attempt) for attempt in self._attempts),
            "generated_tokens": generated_tokens,
            "resumes": [{"step": attempt["step"], "time": attempt["started"]} for attempt in self._attempts[1:]],
            "gpus": self.plan.gpus,
            "versions": {name: package_version(name) for name in (*VERSIONED, *self.plan.libraries)},
            "peak_memory_mb": peak_memory_mb(),
        }

    def _drop_after_resumed_step(self) -> None:
        from rlassay.training.job_callback import keep_until
        from rlassay.training.rollouts import drop_shards_after

        keep_until(self.metrics, self.resumed_step)
        for folder in (self.rollouts, self.tokens):
            drop_shards_after(folder, self.resumed_step)
        for step, weights in checkpoints(self.state / INTERMEDIATE).items():
            if step > self.resumed_step:
                shutil.rmtree(weights)


def _cluster_job() -> dict[str, str]:
    """`slurm_job`, the number of this process's Slurm job, which a restart keeps; empty outside of Slurm."""
    return {"slurm_job": os.environ["SLURM_JOB_ID"]} if "SLURM_JOB_ID" in os.environ else {}


def _unfinished(weights: Path) -> Path:
    return weights.with_name(f"{WEIGHTS}.unfinished")


def _hub_commit(trainer: "Trainer") -> str | None:
    """The commit that transformers loaded the model from; None for a folder, or a model that is built here."""
    config: Any = getattr(cast(Any, trainer).model, "config", None)
    return getattr(config, "_commit_hash", None)


@contextmanager
def open_run(layout: Layout, plan: RunPlan) -> Generator[Run, None, None]:
    """Lock the run directory, decide whether to resume, and record how the job ended.

        with open_run(layout, plan) as run:
            if not run.finished:
                trainer = ...  # output_dir=run.checkpoints, save_total_limit=2; trainer.add_callback(run.callback())
                trainer.train(resume_from_checkpoint=run.resume_from)
                run.finish(trainer)

    SIGTERM and Ctrl-C become SystemExit 143 and 130, so that the status is written before the process ends.

    Errors: RunBusyError naming pid and host of the process that holds the directory.
    """
    run = Run(layout, plan)
    run.state.mkdir(parents=True, exist_ok=True)
    with locked(run.state) if is_main() else nullcontext(), signals_as_exceptions():
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
        run.record_end()
        leave_processes()


def _choose(
    manifest: dict[str, Any] | None, complete: bool, previous: dict[str, Any], plan: RunPlan
) -> Literal["finished", "resume", "fresh"]:
    if manifest is not None and _same(manifest, plan):
        return "finished"
    # COMPLETE without a manifest: the user removed the result (`snakemake -R`) and wants it again from step 0.
    return "fresh" if complete or not _same(previous, plan) else "resume"


def _same(written: dict[str, Any], plan: RunPlan) -> bool:
    return written.get("fingerprint") == plan.fingerprint and written.get("inputs") == plan.inputs


def _wipe(state: Path) -> None:
    (state / RUN_RECORD).unlink(missing_ok=True)  # first, so that a kill in between still ends in a fresh start
    for path in state.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.name.startswith(LOCK):
            path.unlink()


def _closed(attempts: list[dict[str, Any]], metrics: Path) -> list[dict[str, Any]]:
    """The attempts with their ends; for one killed by SIGKILL, the time of its last metrics."""
    last_sign = metrics.stat().st_mtime if metrics.exists() else 0.0
    return [{**each, "ended": each["ended"] or max(last_sign, work_began(each))} for each in attempts]
