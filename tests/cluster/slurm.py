"""A real Slurm of two nodes on this machine, from Debian's packages, started and stopped by the tests.

Two `slurmd` on one machine are two nodes, as Debian builds it, each with a host name and a GPU of its own. The GPU is a
character device, which Slurm hands out like any other. Accounting needs a database and is left out.
"""

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import psutil

CONFIG = Path("/etc/slurm/slurm.conf")
"""Where Slurm's programs look; `srun` inside a job sees no SLURM_CONF."""
GPUS = CONFIG.with_name("gres.conf")
HOSTS = Path("/etc/hosts")
NAMES = "127.0.0.1 n1 n2  # nodes of the tests of rlassay\n"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
SECONDS = 60
TEMPLATE = """\
ClusterName=rlassay
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=15
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
KillWait=5
MinJobAge=3600
GresTypes=gpu
NodeName=n[1-2] NodeAddr=127.0.0.1 Port=[{first}-{last}] Sockets=1 CoresPerSocket=1 RealMemory={mb} Gres=gpu:1
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no Slurm can be started here; None where one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if absent:
        return f"needs Debian's slurm-wlm and munge: {', '.join(absent)} not found"
    if os.geteuid() != 0:
        return "starts Slurm's daemons, which needs root"
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode:
        return "gives each node a host name of its own (unshare --uts), which this container forbids"
    if CONFIG.exists():
        return f"{CONFIG} exists: this machine belongs to a cluster"
    return None


@contextmanager
def cluster() -> Generator[Path, None, None]:
    """Run the daemons while the body runs; yields their folder, which has their logs."""
    with tempfile.TemporaryDirectory(prefix="rlassay-slurm-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("state", "spool-n1", "spool-n2"):
            (folder / part).mkdir()
        hosts = HOSTS.read_text()
        mb = min(10000, psutil.virtual_memory().total // 2**20)  # a node that declares more than it has is refused
        CONFIG.write_text(
            TEMPLATE.format(host=socket.gethostname(), folder=folder, mb=mb, port=17100, first=17101, last=17102)
        )
        os.mknod(folder / "gpu0", stat.S_IFCHR, os.stat("/dev/null").st_rdev)
        GPUS.write_text(f"NodeName=n[1-2] Name=gpu File={folder}/gpu0\n")
        HOSTS.write_text(hosts.rstrip("\n") + f"\n{NAMES}")
        daemons: list[subprocess.Popen[bytes]] = []
        try:
            start_munge()
            for command in (["slurmctld", "-D"], _node("n1"), _node("n2")):
                daemons.append(_daemon(command))
            wait_until(lambda: ask("sinfo", "--noheader", "--format=%t %D").strip() == "idle 2", folder)
            yield folder
        finally:
            for daemon in reversed(daemons):
                daemon.send_signal(signal.SIGTERM)
            for daemon in daemons:
                try:
                    daemon.wait(20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
            CONFIG.unlink()
            GPUS.unlink()
            HOSTS.write_text(hosts)


def start_munge() -> None:
    """Start munged, as its own user, unless one answers already."""
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    for place in ("/run/munge", "/var/log/munge", "/var/lib/munge", "/etc/munge"):
        Path(place).mkdir(exist_ok=True)
        shutil.chown(place, "munge", "munge")
    subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "munged"], check=True)


def _node(name: str) -> list[str]:
    """The command of a node's daemon, which has the node's name as its host name, and so have the jobs there."""
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec slurmd -D -N "$0"', name]


def _daemon(command: list[str]) -> "subprocess.Popen[bytes]":
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return subprocess.Popen(
        command, env=os.environ | {"PATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def ask(*command: str, check: bool = True) -> str:
    """The output of a Slurm command."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def wait_until(condition: Callable[[], bool], folder: Path) -> None:
    """Return as soon as `condition` holds."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            if condition():
                return
        except AssertionError:  # the controller does not answer yet
            pass
        if time.monotonic() > deadline:
            raise TimeoutError("\n".join(log.read_text()[-2000:] for log in sorted(folder.glob("*.log"))))
        time.sleep(0.2)


def end_jobs(folder: Path) -> None:
    """Cancel all jobs, and return once the nodes are done with them: a daemon that stops earlier waits for a minute."""
    ask("scancel", "--user=root")
    wait_until(lambda: not ask("squeue", "--noheader"), folder)


def jobs(folder: Path, comment: str, *states: str) -> list[str]:
    """Ids of jobs, ended ones too, that a project's Snakemake sent; their rule and wildcards contain `comment`."""
    rows = (row.split("|") for row in ask("squeue", "--noheader", "--states=all", "--format=%i|%T|%Z|%k").splitlines())
    return [
        job
        for job, state, where, about in rows
        if where == str(folder) and comment in about and (not states or state in states)
    ]
