"""Start a job's ranks on several Slurm machines: one launcher on each, by `srun`."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from rlassay.config import Study
from rlassay.training.process import RefusedError

JOB = "SLURM_JOB_ID"
PORTS = 20_000
"""The first port of rendezvous; a job takes this one plus the end of its id, so that jobs side by side differ."""
ON_EACH = 'exec "$0" -m accelerate.commands.launch --machine_rank "$SLURM_PROCID" "$@"'
"""Shell line of each task: Slurm numbers the machines, and says which one this is."""


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Rendezvous of a job's launchers."""

    host: str
    """The first machine."""
    port: int
    """A port that is free there."""


def meeting(study: Study) -> Meeting:
    """The rendezvous of this Slurm job's launchers.

    Errors: RefusedError outside of Slurm, with more or fewer machines than the study declares, or where the port is
    in use.
    """
    job = os.environ.get(JOB)
    if job is None:
        raise RefusedError(
            f"the study declares nodes: {study.nodes}, and no Slurm job surrounds this process. Run the study by "
            "snakemake --profile profiles/slurm, or set nodes to 1."
        )
    missing = [name for name in ("srun", "squeue", "scontrol") if shutil.which(name) is None]
    if missing:
        raise RefusedError(
            f"the study declares nodes: {study.nodes}, and {', '.join(missing)}, which start and find processes on "
            f"other machines, are not on {socket.gethostname()}. Install Slurm's commands on every node."
        )
    nodes = _output_of(
        "scontrol", "show", "hostnames", _output_of("squeue", "--noheader", f"--jobs={job}", "--format=%N")
    )
    hosts = nodes.split()
    if len(hosts) != study.nodes:
        raise RefusedError(
            f"the study declares nodes: {study.nodes}, but Slurm job {job} has {len(hosts)} ({', '.join(hosts)}): "
            "Snakemake sent it for an older version of the study. Run the command again."
        )
    port = PORTS + int(job) % 10_000
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise RefusedError(
                f"port {port} of {hosts[0]}, at which the processes of Slurm job {job} meet, is in use ({error}). Run "
                "the command again: another job has another port."
            ) from None
    return Meeting(host=hosts[0], port=port)


def command(study: Study, options: Sequence[str]) -> list[str]:
    """The command that starts all ranks of a job on several machines.

    Args:
        study: gives the numbers of machines and processes.
        options: those of `accelerate launch`, then the module to run and its arguments.

    Errors: see `meeting`.
    """
    where = meeting(study)
    count = str(study.nodes)
    each_once = [f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    machines = ["--num_machines", count, "--main_process_ip", where.host, "--main_process_port", str(where.port)]
    return ["srun", *each_once, "--export=ALL", "bash", "-c", ON_EACH, sys.executable, *machines, *options]


def _output_of(*command: str) -> str:
    """Output of a Slurm command; RefusedError where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(f"{' '.join(command)} failed: {' '.join(done.stderr.split())}")
    return done.stdout.strip()
