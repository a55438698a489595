"""Copies of the project that tests may edit, run and kill."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "workflow", "profiles", "config", "src", "environment.yml", "Makefile", "pyproject.toml")
FAKE_STUDY = """
name: fake
title: A study whose outputs are empty files
question: Which jobs run again after which edit?
seeds: [1, 2]
model: {kind: tiny_vlm}
data: {kind: digits, splits: {sft: 64, train: 32, test: 8}}
sft: {max_steps: 2, learning_rate: 1e-3, per_device_train_batch_size: 8, save_steps: 1}
rl:
  max_steps: 2
  learning_rate: 1e-4
  per_device_train_batch_size: 8
  num_generations: 4
  max_completion_length: 8
  save_steps: 1
rewards:
  choice_accuracy: {weight: 1.0}
  think_answer_format: {weight: 0.5}
evaluation: {num_samples: 2, max_completion_length: 8}
baseline: plain
arms:
  plain: {}
  sharp:
    varies: [rl.temperature]
    rl: {temperature: 0.7}
"""


class Project:
    """A copy of the project in a folder of its own, and the commands that tests run in it."""

    def __init__(self, folder: Path, study: str) -> None:
        self.folder = folder
        self.study = study
        python = Path(sys.executable).parent
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        path = f"{python}{os.pathsep}{os.environ['PATH']}"
        self.environment = inherited | {"PYTHONPATH": str(folder / "src"), "PATH": path}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake on the study, in a process group of its own."""
        command = ["snakemake", "--cores", "2", *arguments, "--config", f"study={self.study}"]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def snakemake(self, *arguments: str, fails: bool = False) -> str:
        """What Snakemake prints on the study; it must succeed, or with `fails` must not."""
        process = self.start(*arguments)
        printed, _ = process.communicate()
        assert (process.returncode != 0) == fails, printed
        return printed

    def planned(self, *arguments: str) -> set[str]:
        """The messages of the jobs that the next run would start."""
        return set(re.findall(r"^Job \d+: (.*)$", self.snakemake("-n", *arguments), flags=re.MULTILINE))

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that stands exactly once in a file."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))

    def append(self, file: str, text: str) -> None:
        """Put text at the end of a file."""
        with (self.folder / file).open("a") as out:
            out.write(text)

    def copy(self, folder: Path) -> "Project":
        """The project as it is now, in another folder, with the same file times."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True, symlinks=True)
        return Project(folder, self.study)


def new_project(folder: Path, name: str, study: str) -> Project:
    """A copy of the project without results, with one more study."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, folder / part)
    (folder / f"config/studies/{name}.yaml").write_text(study)
    return Project(folder, name)
