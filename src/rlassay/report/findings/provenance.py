"""Provenance of a study: dates, machines, commit, and the time of its evaluation."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlassay.files import read_json
from rlassay.job_times import job_seconds
from rlassay.report.findings.records import Provenance
from rlassay.report.gather import Results
from rlassay.report.typeset import counted, duration, listed

EVALUATION = ("generate", "score")
"""Rules that a policy's evaluation on a set takes."""


def build_provenance(results: Results) -> Provenance:
    """The facts found on disk; machine and commit are those of the process that writes the report."""
    layout, policies = results.layout, [folder for row in results.rows.values() for folder in row.folders.values()]
    records = [read_json(layout.run_record(folder)) or {} for folder in results.manifests]
    seconds = [
        job_seconds(layout.benchmark(folder, f"{rule}-{name}"))
        for folder in policies
        for name in results.study.evaluation.sets
        for rule in EVALUATION
    ]
    known = [each for each in seconds if each is not None]
    return Provenance(
        began=min(_known(records, "started"), default=None),
        ended=max(_known(records, "ended"), default=None),
        hosts=tuple(sorted({str(record["host"]) for record in records if "host" in record})),
        host=platform.node(),
        machine=machine(),
        commit=commit(Path.cwd()),
        evaluation_jobs=len(known),
        evaluation_seconds=round(sum(known), 1),
    )


def _known(records: list[dict[str, Any]], key: str) -> list[float]:
    return [float(record[key]) for record in records if record.get(key) is not None]


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Processor, number of CPUs and system of this machine."""
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        named = None
    processor = " ".join(named.group(1).split()) if named else platform.processor() or platform.machine()
    return (
        f"{processor}, {counted(os.cpu_count() or 1, 'CPU')}, {platform.system()}, Python {platform.python_version()}"
    )


def commit(folder: Path) -> str:
    """Short hash of a folder's commit, and whether files differ from it; empty without git."""
    try:
        found = _git(folder, "rev-parse", "--short=10", "HEAD").strip()
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no").strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{found} with local changes" if changed else found


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout


def provenance_summary(found: Provenance) -> str:
    """Dates, machine and commit as sentences."""
    parts: list[str] = []
    if found.began is not None and found.ended is not None:
        parts.append(f"Trained from {_date(found.began)} to {_date(found.ended)} UTC.")
    elsewhere = [host for host in found.hosts if host != found.host]
    where = f"Trained on {listed(list(found.hosts))}; the report was written on" if elsewhere else "Machine:"
    parts.append(f"{where} {found.machine}.")
    if found.commit:
        parts.append(f"Commit {found.commit}.")
    return " ".join(parts)


def evaluation_cost(found: Provenance) -> str:
    """Number and time of the jobs of the evaluation; empty where they were not timed."""
    if not found.evaluation_jobs:
        return ""
    jobs = counted(found.evaluation_jobs, "evaluation job")
    return f"{jobs} took {duration(found.evaluation_seconds)} of wall time in total."


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
