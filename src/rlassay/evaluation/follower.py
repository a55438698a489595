"""A process beside an RL job that evaluates its held-out curve: `evaluation.while_training`.

`judged_meanwhile` is the job's side; `python -m rlassay.evaluation.follower` is the process. The training never waits
for it and does not notice when it dies: the rule `held_out_curve` evaluates the rest. It ends with the job, however
that ends, since it checks every second whether its parent lives.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlassay.config.policies import policies
from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.models.vllm_engine import set_environment

NICENESS = 5
"""Training has priority where both share a core."""
PATIENCE = 5.0
"""Seconds that the process gets to end by itself when the training has ended."""
LEFT = "the rule held_out_curve evaluates what is left when the run has trained"
logger = logging.getLogger(__name__)


@contextmanager
def judged_meanwhile(study: Study, layout: Layout, policy: str, environment: dict[str, str]) -> Generator[None]:
    """Evaluate the held-out curve of a run in a process while the body trains it; a failure only warns.

    Args:
        study: the study.
        layout: paths of its files.
        policy: folder of the run.
        environment: environment variables of the process, which name its GPUs.
    """
    job = {"study": study.model_dump_json(), "root": str(layout.root), "policy": policy, "since": time.time()}
    command = [sys.executable, "-m", "rlassay.evaluation.follower"]
    try:
        # In a session of its own, so that Ctrl-C ends the job alone, which then ends the process.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    except OSError as error:
        logger.warning("no process evaluates weights while %s trains (%s); %s", policy, error, LEFT)
        yield
        return
    assert process.stdin is not None
    with suppress(OSError), process.stdin as given:  # OSError: it has ended already, see below
        given.write(json.dumps(job | {"parent": os.getpid()}))
    try:
        yield
    finally:
        _end(process, policy)


def _end(process: "subprocess.Popen[str]", policy: str) -> None:
    status = process.poll()
    if status is not None:
        text = "the process that evaluated weights while %s trained ended (status %s); %s"
        logger.warning(text, policy, status, LEFT)
        return
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    """Evaluate weights as they appear, until the job ends; 1 after a failure."""
    parent = os.getppid()
    job = json.loads(sys.stdin.read())
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_end_with, args=(parent, job["parent"]), daemon=True).start()
    os.nice(NICENESS)
    with suppress(OSError):  # where memory runs out, Linux ends this process rather than the training
        Path("/proc/self/oom_score_adj").write_text("1000")
    study = Study.model_validate_json(job["study"])
    if study.evaluation.engine.kind == "vllm":
        set_environment(on_cpu=study.gpus == 0)
    from rlassay.evaluation.curve import follow_curve  # loads torch

    try:
        follow_curve(study, Layout(root=Path(job["root"])), policies(study)[job["policy"]], job["since"])
    except Exception:
        logger.warning("weights of %s are no longer evaluated while it trains", job["policy"], exc_info=True)
        return 1
    return 0


def _end_with(first: int, job: int) -> None:
    """End this process when its job has ended.

    Its parent is then no longer `first`, the parent at the start.
    """
    while first == job and os.getppid() == job:
        time.sleep(1)
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
