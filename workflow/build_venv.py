"""Build `.venv` from pyproject.toml and constraints.txt, or leave it alone when it is up to date.

Uses the standard library only and no new syntax, so that a Python that is too old can still say so. A build counts as
finished once `.venv/finished`, written last, holds the digest of both files.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

NEEDED = (3, 11)
VENV = Path(".venv")
INPUTS = (Path("pyproject.toml"), Path("constraints.txt"))


def main():
    """Check the Python, wait for another build to end, build when something changed."""
    if sys.version_info < NEEDED:
        sys.exit(
            f"rlassay needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}. "
            "Name a newer one, for example: make PYTHON=python3.12 .venv"
        )
    build_once(VENV, INPUTS, build)


def build_once(venv, inputs, build):
    """Build an environment unless it was built to its end from the files as they are now.

    A mark in it, with the hex digest of its input files, is written last. One process builds while others wait.
    """
    with open(f"{venv}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = hashlib.sha256(b"\0".join(path.read_bytes() for path in inputs)).hexdigest()
        mark = venv / "finished"
        if not (mark.is_file() and mark.read_text() == wanted):
            build()
            mark.write_text(wanted)


def build():
    """Create or renew the environment; the mark goes first."""
    mark = VENV / "finished"
    if mark.is_file():
        mark.unlink()  # a finished environment of older files: pip brings it up to date
    else:
        create()  # none yet, or the rest of an interrupted build
    print("Installing the packages of pyproject.toml into .venv (minutes, the first time) ...", flush=True)
    pip = (VENV / "bin" / "python", "-m", "pip", "install", "--quiet")
    run(*pip, "-c", "constraints.txt", "-e", ".[cluster,dev,trackers]")


def create():
    """Make an empty environment with pip in it."""
    shutil.rmtree(VENV, ignore_errors=True)
    try:
        import ensurepip  # noqa: F401  # Debian ships a Python without it
    except ImportError:
        sys.exit(
            f"{sys.executable} cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv"
        )
    run(sys._base_executable, "-m", "venv", VENV)  # inside an activated .venv, sys.executable has just been deleted


def run(*command):
    """Run a command that says itself why it fails; end with its exit status then."""
    status = subprocess.call([str(part) for part in command])
    if status:
        sys.exit(status)


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    main()
