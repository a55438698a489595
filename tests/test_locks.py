"""Locks on the disks of a machine and on shared file systems, held by real processes that are killed."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from filelock import FileLock, SoftFileLease, Timeout

from rlassay import locks
from rlassay.training import process
from rlassay.training.process import RunBusyError, locked

HOLDER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from rlassay.locks import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["flock", "lease"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(locks.CHOICE, request.param)
    return request.param


@contextmanager
def holder_of(path: Path, program: str = HOLDER) -> "Generator[subprocess.Popen[str]]":
    """A process that holds the lock of `path`; it does not outlive the body."""
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def test_a_lock_excludes_others_until_its_holder_is_killed(kind: str, tmp_path: Path):
    path = tmp_path / "lock"
    assert not locks.is_locked(path)
    with holder_of(path) as holder:
        assert locks.is_locked(path)
        with pytest.raises(Timeout):
            locks.file_lock(path, timeout=0.0).acquire()
        holder.kill()
        holder.wait()
        assert not locks.is_locked(path)
    with locks.file_lock(path, timeout=1.0):
        assert locks.is_locked(path) or kind == "flock"  # a process does not shut itself out by flock


def test_a_lease_names_its_host_and_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(locks.CHOICE, "lease")
    with locks.file_lock(tmp_path / "lock") as lock:
        marker = (tmp_path / "lock.lease").read_text()
        assert str(psutil.Process().pid) in marker
        assert isinstance(lock, SoftFileLease)
    assert not (tmp_path / "lock.lease").exists()


def test_a_silent_holder_on_another_host_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(locks.CHOICE, "lease")
    monkeypatch.setattr(locks, "LEASE", 3.0)
    path = tmp_path / "lock"
    lock = locks.file_lock(path)
    lock.acquire()
    marker = tmp_path / "lock.lease"
    elsewhere = marker.read_text().replace(socket.gethostname(), "node17")
    lock.release()
    marker.write_text(elsewhere)
    marker.chmod(0o600)
    assert locks.is_locked(path)
    with pytest.raises(Timeout):
        locks.file_lock(path, timeout=1.0).acquire()
    began = time.monotonic()
    with locks.file_lock(path, timeout=20.0):
        assert time.monotonic() - began >= 2


def test_a_process_whose_lease_is_lost_ends_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(locks.CHOICE, "lease")
    short = HOLDER.replace("from rlassay.locks", "from rlassay import locks; locks.LEASE = 1.5\nfrom rlassay.locks")
    with holder_of(tmp_path / "lock", short) as holder:
        (tmp_path / "lock.lease").unlink()
        assert holder.wait(20) == -signal.SIGTERM


def test_a_busy_run_directory_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "patience", lambda path, seconds: 0.5)
    with holder_of(tmp_path / "lock"), pytest.raises(RunBusyError, match="in use by process"), locked(tmp_path):
        pass


@pytest.mark.parametrize(("fstype", "found"), [("nfs4", "nfs4"), ("lustre", "lustre"), ("ext4", None), ("9p", None)])
def test_the_file_system_chooses(fstype: str, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(locks.CHOICE, raising=False)
    mounts = [("/", "overlay"), (str(tmp_path), fstype), (str(tmp_path.parent), "xfs")]
    parts = [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in mounts]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    assert locks.network_file_system(tmp_path / "results/lock") == found
    assert isinstance(locks.file_lock(tmp_path / "lock"), FileLock if found is None else SoftFileLease)


def test_an_unknown_choice_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(locks.CHOICE, "nfs")
    with pytest.raises(ValueError, match="RLASSAY_LOCKS is 'nfs'; it takes flock or lease"):
        locks.file_lock(tmp_path / "lock")
