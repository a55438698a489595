"""Resume a study on Slurm after its Snakemake was killed: await its queued jobs.

`<study's results>/.slurm.json` lists every Snakemake that has sent jobs, under the name of its jobs in Slurm, with the
outputs that it planned: `{"<job name>": {"<output>": "<digest of its params>"}}`. The next Snakemake waits for jobs
that are still in the queue, since a second copy of them would work in the same folders.
"""

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rlassay.cli.engines import require_engines
from rlassay.config import Settings, Study
from rlassay.files import read_json, write_json
from rlassay.locks import network_file_system
from rlassay.training.process import RefusedError

RECORD = ".slurm.json"
POLL = 5.0
"""Seconds between two looks at the queue."""
SQLITE = "sqlite:///"


def digest(params: Mapping[str, object]) -> str:
    """Hex digest of the params that identify a job's output."""
    return hashlib.sha256(repr(sorted(params.items())).encode()).hexdigest()[:16]


def note_plan(root: Path, name: str, planned: Mapping[str, str]) -> None:
    """Record the outputs for which the Snakemake whose jobs are called `name` may send jobs.

    It replaces the plans of earlier ones, which have no job left in the queue.
    """
    write_json(root / RECORD, {name: dict(planned)})


def earlier_plan(root: Path) -> dict[str, str]:
    """Output -> digest of its params, as the last Snakemake that sent jobs planned it."""
    return {output: params for plan in (read_json(root / RECORD) or {}).values() for output, params in plan.items()}


def wait_for_earlier_jobs(root: Path) -> bool:
    """Wait until no job of an earlier Snakemake is in Slurm's queue; returns whether there was one.

    Errors: RefusedError where Slurm does not answer, since jobs might be doubled.
    """
    names = list(read_json(root / RECORD) or {})
    if not names:
        return False
    shown: list[str] | None = None
    while jobs := queued(names):
        if jobs != shown:
            print(
                f"Waiting for {len(jobs)} jobs that an earlier Snakemake has sent to Slurm: {', '.join(jobs)}. "
                f"To stop them instead: scancel --name={','.join(names)}",
                file=sys.stderr,
                flush=True,
            )
            shown = jobs
        time.sleep(POLL)
    return shown is not None


def queued(names: list[str]) -> list[str]:
    """Ids and states of queued Slurm jobs with one of these names, as `17 (RUNNING)`."""
    if shutil.which("squeue") is None:
        raise RefusedError(
            "this study has sent jobs to Slurm, but `squeue`, which lists those in its queue, is not on this machine. "
            "Run the command on a machine of the cluster; or, if none of the jobs runs any more, remove the study's "
            f"{RECORD}."
        )
    asked = subprocess.run(
        ["squeue", "--noheader", "--format=%i (%T)", f"--name={','.join(names)}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        raise RefusedError(
            f"Slurm cannot list the jobs of this study in its queue ({' '.join(asked.stderr.split())}); "
            "they must not be sent twice. Run the same command again when `squeue` works."
        )
    return sorted(line.strip() for line in asked.stdout.splitlines() if line.strip())


def check_executor(study: Study, settings: Settings, *, local: bool) -> None:
    """Refuse a study that cannot run on the machine or cluster that Snakemake will use.

    Errors: StudyError for an engine that is not installed; RefusedError for jobs of several nodes without a cluster,
    or a tracking database that jobs on several machines would damage.
    """
    require_engines(study)
    if local:
        if study.nodes > 1:
            raise RefusedError(
                f"the study declares nodes: {study.nodes}, and jobs of several machines need Slurm: add "
                "--profile profiles/slurm, or set nodes to 1"
            )
        return
    tracking = settings.tracking
    if tracking.enabled and tracking.uri.startswith(SQLITE):
        kind = network_file_system(Path(tracking.uri.removeprefix(SQLITE)))
        if kind is not None:
            raise RefusedError(
                f"tracking.uri is {tracking.uri}, a database on {kind} that jobs on several machines would damage. "
                "Start `mlflow server --host 0.0.0.0` on a machine that all of them reach and set "
                "tracking.uri: http://MACHINE:5000, or set tracking.enabled: false, in config/config.yaml; later, "
                "`rlassay mlflow-sync` fills it in from the files."
            )
