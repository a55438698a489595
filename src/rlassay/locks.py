"""Locks between processes: flock on local disks, leases on file systems that machines share.

A kernel frees a flock however its process ends, but over NFS and similar file systems a flock may be lost, or never
freed. There a lock is a file that its holder creates atomically, with its host and process in it, and touches while it
runs. Another process takes it over when the holder is seen to be dead on the same host, or when nobody has touched it
for `LEASE` seconds. A process that finds its lock taken over ends itself.
"""

import os
import signal
import time
from pathlib import Path

import psutil
from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

LEASE = 120.0
"""Seconds without a sign of life after which a lease counts as abandoned; holders give one every 40 s."""
IN_A_CLUSTER = 600.0
"""Longest wait, seconds, of a cluster's job for another process that holds its lock."""
CHOICE = "RLASSAY_LOCKS"
"""Environment variable that overrides the choice by file system: `flock` or `lease`."""
NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "lustre", "gpfs", "beegfs", "beegfs_nodev", "ceph", "glusterfs"),
    *("panfs", "wekafs", "orangefs", "pvfs2", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.juicefs"),
    *("fuse.dfuse", "fuse.s3fs", "fuse.gcsfuse", "fuse.mfs"),
}
"""Types of file systems that machines share, as `/proc/mounts` names them."""


def file_lock(path: Path, timeout: float = -1.0) -> BaseFileLock:
    """A lock of the kind that suits the file system of `path`; use it in a `with` statement.

    Args:
        path: the lock file; a lease lies beside it, as `<path>.lease`.
        timeout: seconds to wait for another holder before `filelock.Timeout`; -1 waits for ever.
    """
    if not is_lease(path):
        return FileLock(path, timeout=timeout)
    return SoftFileLease(_lease(path), lease_duration=LEASE, timeout=timeout, on_compromise=_leave)


def is_locked(path: Path) -> bool:
    """Whether a live process holds the lock of `path`."""
    lease = is_lease(path)
    marker = _lease(path) if lease else path
    if not marker.exists():
        return False
    try:
        with file_lock(path, timeout=0.0):
            return False
    except Timeout:
        # The holder may have died on another host, where nobody can look for it.
        return not lease or time.time() - _touched(marker) < 2 * LEASE


def patience(path: Path, seconds: float) -> float:
    """Seconds to wait for a lock.

    They are `seconds`, or enough to detect a dead holder on another machine. A cluster may start a job again while its
    first attempt has not quite ended, so its jobs wait longer.
    """
    if "SLURM_JOB_ID" in os.environ:
        return IN_A_CLUSTER
    return 1.5 * LEASE if is_lease(path) else seconds


def is_lease(path: Path) -> bool:
    """Whether the lock of `path` is a lease."""
    choice = os.environ.get(CHOICE)
    if choice not in (None, "", "flock", "lease"):
        raise ValueError(f"{CHOICE} is {choice!r}; it takes flock or lease, or nothing for the choice by file system")
    return choice == "lease" if choice else network_file_system(path) is not None


def network_file_system(path: Path) -> str | None:
    """The type of the shared file system that `path` lies on; None on a disk of this machine."""
    place = path.absolute()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    kind = next((mounts[parent] for parent in (place, *place.parents) if parent in mounts), "")
    return kind if kind in NETWORK else None


def _lease(path: Path) -> Path:
    return path.with_name(f"{path.name}.lease")


def _touched(marker: Path) -> float:
    try:
        return marker.stat().st_mtime
    except FileNotFoundError:  # released this moment
        return 0.0


def _leave(loss: object) -> None:
    """End this process in order, because it no longer holds its lock.

    Another process has taken the lock, or the file system has lost it.
    """
    os.kill(os.getpid(), signal.SIGTERM)
