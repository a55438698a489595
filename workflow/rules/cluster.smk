"""The start of a run: the lock of the study, and what an earlier Snakemake has left in a cluster's queue and on disk."""

from filelock import Timeout

from rlassay.cli.cluster.controller import check_executor, digest, earlier_plan, note_plan, wait_for_earlier_jobs
from rlassay.locks import file_lock
from rlassay.training.process import RefusedError

# `kill -9` leaves Snakemake's own lock behind; this one is free once its holder has ended.
STUDY_LOCK = file_lock(LAYOUT.root / ".lock", timeout=0.0)
# profiles/default, which Snakemake lays over any other profile, caps the GPUs of one machine; a cluster counts its own.
if workflow.resource_settings.nodes is not None:
    workflow.global_resources["gpu"] = 1_000_000


def planned():
    """First output of each job -> digest of the params that identify it."""
    return {str(job.output[0]): digest(dict(job.params.items())) for job in workflow.dag.jobs if job.output}


def begin():
    """Lock the study and start, or say why that cannot be."""
    try:
        STUDY_LOCK.acquire()
        begin_on_cluster()
    except Timeout:
        raise WorkflowError(f"Another Snakemake is running on {LAYOUT.root}; wait for it or stop it.") from None
    except (StudyError, RefusedError) as error:
        raise WorkflowError(str(error)) from None


def begin_on_cluster():
    """Wait for the jobs of an earlier Snakemake, take over what they have made, and note which jobs this one may send."""
    check_executor(STUDY, SETTINGS, local=workflow.local_exec)
    if wait_for_earlier_jobs(LAYOUT.root) or not take_over(earlier_plan(LAYOUT.root)):
        STUDY_LOCK.release()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # the remaining jobs have changed
    if not workflow.local_exec:
        note_plan(LAYOUT.root, workflow.scheduler._executor.run_uuid, planned())


def take_over(plan):
    """Give outputs that were made while no Snakemake ran the record that one would have written.

    Without it, later changes of the study would go unnoticed. False if it has changed already: they are removed."""
    current, fresh = planned(), True
    for job in workflow.dag.jobs:
        first = str(job.output[0]) if job.output else None
        if first in plan and not workflow.dag.needrun(job) and workflow.persistence.metadata(job.output[0]) is None:
            if plan[first] == current[first]:
                workflow.async_run(workflow.persistence.finished(job))
            else:
                Path(first).unlink()
                fresh = False
    return fresh
