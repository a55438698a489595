import subprocess
import sys
from pathlib import Path

JOB = (
    "from rlassay.training.workflow_process import workflow_process as look; above = look(); print(above and above.pid)"
)
WORKFLOW = """
import os, subprocess, sys
print(os.getpid(), flush=True)
subprocess.run(["bash", "-c", "{python} -c '{job}'; true"], check=True)
"""


def test_the_snakemake_above_the_shell_is_found(tmp_path: Path):
    (tmp_path / "snakemake").write_text(WORKFLOW.format(python=sys.executable, job=JOB))
    done = subprocess.run([sys.executable, str(tmp_path / "snakemake")], capture_output=True, text=True, check=True)
    own, found = done.stdout.split()
    assert found == own


def test_a_job_by_hand_has_none():
    done = subprocess.run([sys.executable, "-c", JOB], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
