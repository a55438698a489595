"""A real Slurm of two nodes on this machine, from Debian's packages, started and stopped by the tests.

Two `slurmd` on one host are two nodes, as Debian builds it. Accounting needs a database and is left out.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import psutil

CONFIG = Path("/etc/slurm/slurm.conf")
"""Where Slurm's programs look; `srun` inside a job sees no SLURM_CONF."""
HOSTS = Path("/etc/hosts")
NAMES = "127.0.0.1 n1 n2  # nodes of the tests of rlassay\n"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
SECONDS = 60
TEMPLATE = """\
ClusterName=rlassay
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=30
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
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] Sockets=1 CoresPerSocket=1 RealMemory={mb}
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no Slurm can be started here; None where one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if absent:
        return f"needs Debian's slurm-wlm and munge: {', '.join(absent)} not found"
    if os.geteuid() != 0:
        return "starts Slurm's daemons, which needs root"
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
        HOSTS.write_text(hosts.rstrip("\n") + f"\n{NAMES}")
        daemons: list[subprocess.Popen[bytes]] = []
        try:
            start_munge()
            for command in (["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]):
                daemons.append(_daemon(command))
            wait_until(lambda: ask("sinfo", "--noheader", "--format=%t %D").strip() == "idle 2", folder)
            yield folder
        finally:
            ask("scancel", "--user=root", check=False)
            for daemon in reversed(daemons):
                daemon.send_signal(signal.SIGTERM)
            for daemon in daemons:
                try:
                    daemon.wait(20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
            CONFIG.unlink()
            HOSTS.write_text(hosts)


def start_munge() -> None:
    """Start munged, as its own user, unless one answers already."""
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    for place in ("/run/munge", "/var/log/munge", "/var/lib/munge", "/etc/munge"):
        Path(place).mkdir(exist_ok=True)
        shutil.chown(place, "munge", "munge")
    subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "munged"], check=True)


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


def jobs(comment: str, *states: str) -> list[str]:
    """Ids of the jobs, those that have ended too, whose comment (rule and wildcards) contains `comment`."""
    rows = (line.split("|") for line in ask("squeue", "--noheader", "--states=all", "--format=%i|%T|%k").splitlines())
    return [job for job, state, about in rows if comment in about and (not states or state in states)]
