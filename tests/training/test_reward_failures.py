"""A reward that fails inside a real run loses its own values, and changes nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlassay.layout import Layout
from rlassay.rewards.outcomes import InvalidOutputError
from rlassay.rewards.sandbox.child_process import child_process
from rlassay.rewards.sandbox.guard import TooManyFailuresError
from rlassay.rewards.sandbox.isolation import WORKER
from rlassay.training.rl import run_rl
from tests.training.conftest import copied
from tests.training.short_run import RUN, load_short, policy_of, proof, rollouts, timeless_metrics

STEPS = 2
REWARD = """
import os, pathlib, sys, time

ONCE = pathlib.Path(__file__).with_suffix(".once")

def reward(item):
    if not ONCE.exists():
        ONCE.touch()
        {first}
    return 0.5

def of_groups(items):
    return [0.5] * (len(items) - 1)
"""


def run(folder: Path, warm_started: Path, first: str, **changes: Any) -> Layout:
    """Two steps with a reward of weight 0 that does `first` on its first completion, and gives .5 to all others."""
    (folder / "mine.py").write_text(REWARD.format(first=first))
    mine = {"weight": 0.0, "options": {"path": f"{folder / 'mine.py'}:reward"}, **changes}
    study = load_short(folder, rl__max_steps=STEPS, rewards__custom=mine)
    layout = copied(warm_started, folder)
    run_rl(study, layout, policy_of(study))
    return layout


@pytest.fixture(scope="module")
def undisturbed(warm_started: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The results with a reward that never fails."""
    return run(tmp_path_factory.mktemp("undisturbed"), warm_started, "return 0.5")


def without_custom(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if "custom" not in name} for row in rows]


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        ("raise KeyError('gold')", "error"),
        ("sys.exit(3)", "error"),
        ("time.sleep(3600)", "timeout"),
        ("os._exit(3)", "crash"),
        ("return float('nan')", "not_finite"),
        ("print('x' * 100_000); os.write(1, b'{\"reply\": 7}\\n'); sys.stdin.read()", None),
    ],
)
def test_the_runs_other_numbers_are_unchanged(
    first: str, kind: str | None, undisturbed: Layout, warm_started: Path, tmp_path: Path
):
    layout = run(tmp_path, warm_started, first, timeout=2.0 if kind == "timeout" else 60.0)
    rows = rollouts(layout)
    assert [row["failed.custom"] for row in rows] == [kind] + [None] * (8 * STEPS - 1)
    assert [row["raw.custom"] for row in rows] == [0.5 if kind is None else None] + [0.5] * (8 * STEPS - 1)
    logged = timeless_metrics(layout)
    assert [line.get(f"rewards/custom/failed/{kind}") for line in logged] == [None if kind is None else 1, None]
    assert without_custom(rows) == without_custom(rollouts(undisturbed))
    assert without_custom(logged) == without_custom(timeless_metrics(undisturbed))
    assert proof(layout)["sha256"] == proof(undisturbed)["sha256"]


def test_a_wrong_length_stops_the_run_and_names_the_reward(warm_started: Path, tmp_path: Path):
    options = {"path": f"{tmp_path / 'mine.py'}:of_groups", "batch": True}
    with pytest.raises(
        InvalidOutputError, match=r"^reward custom, prompt \w+: custom .*: got 3 values for 4 completions"
    ):
        run(tmp_path, warm_started, "pass", options=options)


def test_too_many_failures_stop_the_run_which_then_resumes(warm_started: Path, tmp_path: Path):
    (tmp_path / "mine.py").write_text("def reward(item):\n    return float(item['response_length']) / 0\n")
    mine = {"weight": 0.0, "options": {"path": f"{tmp_path / 'mine.py'}:reward"}}
    layout = copied(warm_started, tmp_path)
    study = load_short(tmp_path, rl__max_steps=6, rewards__custom=mine)
    # Eight completions per step: after the fourth step the rate counts.
    with pytest.raises(TooManyFailuresError, match=r"32 of 32 .*the first error, prompt \w+: ZeroDivisionError: "):
        run_rl(study, layout, policy_of(study))
    study = load_short(tmp_path, rl__max_steps=6, rewards__custom=mine | {"max_failures": 0.999})
    with pytest.raises(TooManyFailuresError):  # it resumes from step 2, and counts failures from 0
        run_rl(study, layout, policy_of(study))
    attempts = json.loads((layout.state(RUN) / "run.json").read_text())["attempts"]
    assert [attempt["step"] for attempt in attempts] == [0, 2]
    assert [line["step"] for line in timeless_metrics(layout)] == [1, 2, 3, 4, 5]


def test_one_worker_serves_all_rewards_of_the_job(undisturbed: Layout):
    assert (undisturbed.root / RUN / "train.json").exists()
    assert child_process(WORKER).pid() is not None


def test_metrics_of_several_rewards_of_the_users_own_are_logged(warm_started: Path, tmp_path: Path):
    text = "def reward(item, scale):\n    return 0.5, {'tokens': scale * item['response_length']}\n"
    (tmp_path / "own.py").write_text(text)
    own = {"weight": 0.0, "kind": "custom", "path": f"{tmp_path / 'own.py'}:reward"}
    rewards = {"rewards__one": own | {"options": {"scale": 1}}, "rewards__two": own | {"options": {"scale": 2}}}
    study = load_short(tmp_path, rl__max_steps=STEPS, **rewards)
    layout = copied(warm_started, tmp_path)
    run_rl(study, layout, policy_of(study))
    lengths = [row["token_count"] for row in rollouts(layout) if row["step"] == 1]
    first = timeless_metrics(layout)[0]
    assert first["rewards/one/metrics/tokens"] == pytest.approx(sum(lengths) / len(lengths))
    assert first["rewards/two/metrics/tokens"] == pytest.approx(2 * sum(lengths) / len(lengths))
    assert first["rewards/two/mean"] == 0.5
