"""Copies of the project that tests may edit, run and kill."""

import atexit
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from rlassay import ranks
from rlassay.cli.stages import STAGES
from tests.launcher import Launcher

ROOT = Path(__file__).parents[2]
INPUTS = ("pyproject.toml", "constraints.txt")
PARTS = ("Snakefile", "Makefile", "workflow", "profiles", "config", "src", "environment.yml", *INPUTS)
# The warm start is long enough that completions earn different rewards: otherwise RL would change no weight, and no
# test could tell a resumed run from an untrained one.
SMALLEST = """
name: smallest
title: The smallest study that is real at every stage
question: Does the whole pipeline hold together, whatever is killed?
seeds: [1, 2]
model: {kind: tiny_vlm, layers: 1, width: 32, vision_layers: 1, vision_width: 16}
data: {kind: digits, splits: {sft: 256, train: 32, test: 8}}
sft: {max_steps: 60, learning_rate: 1e-2, per_device_train_batch_size: 16, save_steps: 30}
rl:
  max_steps: 8
  learning_rate: 1e-3
  per_device_train_batch_size: 8
  num_generations: 4
  max_completion_length: 16
  save_steps: 1
rewards:
  choice_accuracy: {weight: 1.0}
  think_answer_format: {weight: 0.5}
evaluation: {num_samples: 2, max_completion_length: 16}
baseline: plain
arms:
  plain: {}
  sharp:
    varies: [rl.temperature]
    rl: {temperature: 0.7}
"""


@cache
def planner() -> Launcher:
    """Starts dry runs of Snakemake, with its libraries in place; each imports the project's own code itself."""
    launcher = Launcher("snakemake.cli", "snakemake.api", "snakemake.workflow")
    atexit.register(launcher.close)
    return launcher


class Started:
    """A command that runs in a process group of its own and prints to a file."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        # A file and no pipe: jobs that outlive the command would keep a pipe open.
        self._printed = folder / f"printed-{time.monotonic_ns()}.txt"
        with self._printed.open("w") as out:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True
            )

    def kill_all(self) -> None:
        """`kill -9` of the command and of everything that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self, fails: bool = False) -> str:
        """Its output once it has ended; it must have succeeded, or with `fails` must not."""
        status = self.process.wait()
        printed = self._printed.read_text()
        assert (status != 0) == fails, printed
        return printed


class Project:
    """A copy of the project in a folder of its own, and the commands that tests run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results/smallest"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = inherited | {"PYTHONPATH": str(folder / "src"), "PATH": path}

    def start(self, *command: str) -> Started:
        """Start a command in the project."""
        return Started(list(command), self.folder, self.environment)

    def start_snakemake(self, *arguments: str) -> Started:
        """Start Snakemake on the smallest study."""
        return self.start("snakemake", "--cores", "2", *arguments, "--config", "study=smallest")

    def snakemake(self, *arguments: str, fails: bool = False) -> str:
        """What Snakemake prints on the smallest study; it must succeed, or with `fails` must not."""
        return self.start_snakemake(*arguments).end(fails)

    def planned(self, *arguments: str) -> set[str]:
        """The messages of the jobs that the next run would start."""
        log = self.folder / f"planned-{time.monotonic_ns()}.txt"
        given = ["--cores", "2", "-n", *arguments, "--config", "study=smallest"]
        run = planner().start(given, log, "snakemake", folder=str(self.folder), path=str(self.folder / "src"))
        assert run.wait() == 0, log.read_text()
        return set(re.findall(r"^Job \d+: (.*)$", log.read_text(), flags=re.MULTILINE))

    def run_planned(
        self, launcher: Launcher, study: str = "smallest", scale: str = "null", processes: int = 1
    ) -> list[str]:
        """Run the jobs that Snakemake plans, in its order, forked from `launcher`; returns their stages.

        `processes` is the number of ranks of jobs that the study's processes share. That Snakemake itself starts jobs,
        `test_real_study.py` tests, and that a job starts its ranks, `tests/training/test_shared_jobs.py`.
        """
        chosen = ["--config", f"study={study}", f"scale={scale}"]
        # `.venv-vllm` has Snakemake without its command.
        command = (sys.executable, "-m", "snakemake", "--cores", "2", "-np", "ablation_report")
        plan = self.start(*command, *chosen).end()
        jobs = re.findall(r'python -m rlassay.cli.stages (\w+) "\$@"(.*?) 2?>>', plan)
        given = ["--study", study, "--scale", scale, "--engine", "null", "--results", "results"]
        log, folder = self.folder / "log", str(self.folder)
        for stage, options in jobs:
            arguments = [stage, *given, *shlex.split(options)]
            if processes > 1 and STAGES[stage].in_processes:
                with TemporaryDirectory() as signs:
                    environment = {ranks.FOLDER: signs, "DS_ACCELERATOR": "cpu"}
                    launcher.run_ranks("rlassay.cli.stages", arguments, processes, log, folder, **environment)
            else:
                job = launcher.start(arguments, log, folder=folder)
                assert job.wait() == 0, log.read_text()
        return [stage for stage, _ in jobs]

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that occurs exactly once in a file."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))

    def append(self, file: str, text: str) -> None:
        """Put text at the end of a file."""
        with (self.folder / file).open("a") as out:
            out.write(text)

    def copy(self, folder: Path) -> "Project":
        """The project as it is now, in another folder, with the same file times."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True, symlinks=True)
        return Project(folder)


def new_project(folder: Path) -> Project:
    """A copy of the project without results, and with the smallest study."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, folder / part)
    (folder / "config/studies/smallest.yaml").write_text(SMALLEST)
    return Project(folder)


def lend_venv(project: Project) -> None:
    """Give the copy a `.venv` that is this one, finished, so that `make` has nothing to install."""
    venv = project.folder / ".venv"
    venv.mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != "finished":
            (venv / part.name).symlink_to(part)
    inputs = b"\0".join((project.folder / name).read_bytes() for name in INPUTS)
    (venv / "finished").write_text(hashlib.sha256(inputs).hexdigest())
