"""CONTRIBUTING.md is true: its recipes, followed in a copy with the code that they print, and its reading paths."""

import json
import re
import subprocess
from pathlib import Path
from textwrap import dedent

import numpy as np
import pyarrow.parquet as pq
import pytest

from rlassay.layout import Layout, shards
from tests.workflow.project import ROOT, Project, new_project

POLICY = "runs/plain/seed1"
STUDY = """
name: smallest
title: Three toys
question: Do the recipes hold?
seeds: [1]
model: {kind: tiny_vlm, layers: 1, width: 32, vision_layers: 1, vision_width: 16}
data: {kind: digits, splits: {train: 16, test: 8}}
rl:
  max_steps: 2
  learning_rate: 1e-3
  per_device_train_batch_size: 8
  num_generations: 4
  max_completion_length: 12
  advantage: {kind: median_baseline, scale: 2.0}
rewards:
  shout: {weight: 1.0}
  choice_accuracy: {weight: 1.0}
credit:
  - {kind: first_tokens, count: 3}
evaluation: {num_samples: 2, max_completion_length: 12}
baseline: plain
arms:
  plain: {}
"""


def printed_code() -> dict[str, str]:
    """Name -> the code of each class or function that a recipe prints."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    code = [dedent(block) for block in blocks]
    return {name: block for block in code for name in re.findall(r"^(?:def|class) (\w+)", block, flags=re.MULTILINE)}


def follow_reward(project: Project, code: dict[str, str]) -> None:
    project.append("src/rlassay/rewards/form.py", "\n\n" + code["shout"])
    rewards = "src/rlassay/rewards/__init__.py"
    project.edit(rewards, "rewards.form import strict", "rewards.form import shout, strict")
    project.edit(rewards, "REWARDS: dict[str, Reward] = {\n", 'REWARDS: dict[str, Reward] = {\n    "shout": shout,\n')


def follow_credit_part(project: Project, code: dict[str, str]) -> None:
    parts, config = "src/rlassay/credit/parts.py", "src/rlassay/config/credit.py"
    project.edit(parts, "CREDITS: dict", code["first_tokens"] + "\n\nCREDITS: dict")
    project.edit(parts, '    "uniform": uniform,\n', '    "uniform": uniform,\n    "first_tokens": first_tokens,\n')
    needs = '    "uniform": frozenset(),\n'
    project.edit(parts, needs, needs + '    "first_tokens": frozenset(),\n')
    project.edit(
        config, "CreditConfig = Annotated[\n", code["FirstTokens"] + "\n\nCreditConfig = Annotated[\n    FirstTokens |"
    )


def follow_advantage_estimator(project: Project, code: dict[str, str]) -> None:
    (project.folder / "src/rlassay/advantages/median_baseline.py").write_text(code["median_baseline"])
    registry, config = "src/rlassay/advantages/__init__.py", "src/rlassay/config/algorithm.py"
    grpo = "from rlassay.advantages.grpo import grpo\n"
    project.edit(registry, grpo, grpo + "from rlassay.advantages.median_baseline import median_baseline\n")
    project.edit(registry, '    "grpo": grpo,\n', '    "grpo": grpo,\n    "median_baseline": median_baseline,\n')
    union = "AdvantageConfig = Annotated[\n"
    project.edit(config, union, f"{code['MedianBaselineAdvantage']}\n\n{union}    MedianBaselineAdvantage |")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy with the three toys, in which their study is trained."""
    project, code = new_project(tmp_path_factory.mktemp("recipes")), printed_code()
    for follow in (follow_reward, follow_credit_part, follow_advantage_estimator):
        follow(project, code)
    subprocess.run(["python", "-m", "rlassay.config.schema"], cwd=project.folder, env=project.environment, check=True)
    (project.folder / "config/studies/smallest.yaml").write_text(STUDY)
    project.snakemake(str(Layout(root=Path("results/smallest")).train_manifest(POLICY, "rl")))
    return project


def rows(folder: Path) -> list[dict]:
    return [row for shard in shards(folder).values() for row in pq.read_table(shard).to_pylist()]


def test_the_new_reward_scores_completions(project: Project):
    rollouts = rows(Layout(root=project.results).rollouts(POLICY))
    assert len(rollouts) == 16
    assert [row["raw.shout"] for row in rollouts] == [float(row["completion"].isupper()) for row in rollouts]
    assert {row["raw.shout"] for row in rollouts} == {0.0, 1.0}


def test_the_new_credit_part_weights_tokens(project: Project):
    records = rows(Layout(root=project.results).tokens(POLICY))
    assert max(len(row["tokens"]) for row in records) > 3
    for row in records:
        assert [weight > 0 for weight in row["weight"]] == [index < 3 for index in range(len(row["tokens"]))]


def test_the_new_estimator_makes_the_advantages(project: Project):
    rollouts = rows(Layout(root=project.results).rollouts(POLICY))
    rewards = np.array([row["reward"] for row in rollouts]).reshape(-1, 4)
    expected = 2.0 * (rewards - np.median(rewards, axis=1, keepdims=True))
    assert np.abs(expected).max() > 0
    assert [row["advantage"] for row in rollouts] == pytest.approx(expected.ravel().tolist(), abs=1e-5)


def test_the_schema_knows_the_new_sections(project: Project):
    schema = json.dumps(json.loads((project.folder / "config/schema.json").read_text()))
    assert all(name in schema for name in ("shout", "first_tokens", "median_baseline"))


@pytest.mark.parametrize(
    ("title", "most"),
    [
        ("A reward, from the study file to the loss", 15),
        ("One number of the page", 9),
        ("What `ablation_report` does", 16),
    ],
)
def test_a_reading_path_is_short_and_its_files_exist(title: str, most: int):
    _, path = (ROOT / "CONTRIBUTING.md").read_text().split(f"**{title}")
    files = re.findall(r"^\d+\. `([^`]+)`", path.split("\n**")[0], flags=re.MULTILINE)
    assert 5 < len(files) <= most
    assert [file for file in files if not (ROOT / file).is_file()] == []
