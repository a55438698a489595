"""Misbehaving rewards in the worker process: each fails its own completions, and no others."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rlassay.records import PromptRow
from rlassay.rewards import REWARDS, is_per_sample
from rlassay.rewards.custom import custom
from rlassay.rewards.outcomes import Failure, InvalidOutputError, RewardError
from rlassay.rewards.sandbox.child_process import child_process
from rlassay.rewards.sandbox.isolation import WORKER, score_in_worker
from tests.rewards.make import completion, row

TROUBLE = Path(__file__).parent / "trouble.py"
PATIENT = 60.0  # s; no test waits that long
ORPHAN = f"""
import sys
from rlassay.records import Completion, PromptRow
from rlassay.rewards import REWARDS
from rlassay.rewards.sandbox.child_process import child_process
from rlassay.rewards.sandbox.isolation import WORKER, score_in_worker
row = PromptRow(prompt_id="p", question="?", answer="B")
group = [Completion(text="", token_count=1, finished=True, row=row)]
score_in_worker(REWARDS["think_format"], {{}}, group, per_sample=True, timeout={PATIENT})
print(child_process(WORKER).pid(), flush=True)
score_in_worker(REWARDS["custom"], {{"path": sys.argv[1]}}, group, per_sample=True, timeout=3600)
"""


def score(*texts, function="obeys", timeout=PATIENT, batch=False):
    """Outcomes of a group with these texts of 1, 2, 3, ... tokens, by a function of `trouble.py`."""
    group = [completion(text, token_count=count) for count, text in enumerate(texts, 1)]
    options = {"path": f"{TROUBLE}:{function}", "batch": batch}
    return score_in_worker(custom, options, group, per_sample=not batch, timeout=timeout)


def test_values_equal_those_of_a_direct_call():
    signals = {"modality_dominance/late": 1.5, "modality_dominance/all": 40.0}
    group = [completion(f"<answer>B</answer>{'ж' * 70_000}", token_count=9, of=row("B"), signals=signals)] * 3
    for name, options in {"choice_accuracy": {}, "modality_balance": {"ratio": 3.0}, "vision_gain": {}}.items():
        reward, per_sample = REWARDS[name], is_per_sample(name, options)
        outcomes = score_in_worker(reward, options, group, per_sample=per_sample, timeout=PATIENT)
        assert outcomes == reward(group, **options)
    assert score_in_worker(REWARDS["vision_gain"], {}, [], per_sample=False, timeout=PATIENT) == []


def test_it_starts_once_and_loads_no_torch():
    score("a")
    worker = child_process(WORKER).pid()
    assert worker is not None
    score("a", "b")
    assert child_process(WORKER).pid() == worker
    libraries = {Path(region.path).name for region in psutil.Process(worker).memory_maps()}
    assert not {name for name in libraries if "torch" in name}
    assert psutil.Process(worker).num_threads() <= 2  # the main one, and one that watches the parent


@pytest.mark.parametrize(
    ("said", "text"),
    [("raise", "KeyError: 'gold'"), ("sys.exit", "SystemExit: 3"), ("interrupt", "KeyboardInterrupt: ")],
)
def test_an_exception_costs_its_completion_alone(said, text):
    score("a")
    worker = child_process(WORKER).pid()
    before, failure, after = score("a", said, "c")
    assert (before, after) == (0.1, 0.3)
    assert isinstance(failure, Failure)
    assert failure.kind == "error"
    assert failure.text.startswith(f'{text} (File "{TROUBLE}", line ')
    assert child_process(WORKER).pid() == worker


@pytest.mark.parametrize("said", ["print", "read"])
def test_printing_and_reading_disturb_nothing(said, capfd):
    assert score("a", said, "c") == [0.1, 0.2, 0.3]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("said", "how"), [("os._exit", "exit status 3"), ("segfault", "SIGSEGV")])
def test_a_crash_costs_its_completion_alone(said, how):
    outcomes = score("a", said, "c", said)
    failures = [each for each in outcomes if isinstance(each, Failure)]
    assert outcomes == [0.1, failures[0], 0.3, failures[1]]
    assert [each.kind for each in failures] == ["crash", "crash"]
    assert failures[0].text.startswith(f"the process died ({how})")


def test_a_timeout_costs_its_completion_alone():
    score("a")
    failure = Failure(kind="timeout", text="no value within 2 s")
    assert score("a", "sleep", "c", timeout=2.0) == [0.1, failure, 0.3]


def test_values_that_are_not_finite_fail():
    kinds = [each.kind if isinstance(each, Failure) else each for each in score("nan", "b", "inf", "none")]
    assert kinds == ["not_finite", 0.2, "not_finite", None]


def test_a_failure_of_a_group_reward_costs_the_group():
    first, second = score("a", "raise", function="group_obeys", batch=True)
    assert isinstance(first, Failure)
    assert first == second
    assert first.kind == "error"
    assert first.text.startswith(f"KeyError: 'gold' (File \"{TROUBLE}\", line ")
    failures = score("a", "os._exit", "c", function="group_obeys", batch=True)
    assert [each.kind for each in failures if isinstance(each, Failure)] == ["crash"] * 3


def test_an_invalid_output_is_an_error():
    with pytest.raises(InvalidOutputError, match=r"^custom .*: got 1 values for 2 completions$"):
        score("a", "too few", function="group_obeys", batch=True)
    with pytest.raises(InvalidOutputError, match="got 'good'; expected a number"):
        score("a", "text")
    assert score("a") == [0.1]


def test_a_reward_that_cannot_be_loaded_is_an_error():
    with pytest.raises(RewardError, match=r"it cannot be loaded: ValueError: path: no function 'nothing' in"):
        score("a", function="nothing")


def test_a_worker_that_died_between_two_questions_is_replaced():
    score("a")
    worker = psutil.Process(child_process(WORKER).pid())
    worker.kill()
    worker.wait()
    assert score("a", "b") == [0.1, 0.2]


def test_a_row_is_serialised_once_for_all_rewards(monkeypatch):
    calls = []
    dump = PromptRow.model_dump_json
    monkeypatch.setattr(PromptRow, "model_dump_json", lambda row: calls.append(row) or dump(row))
    group = [completion("<think></think>B", of=row("A")), completion("A")]
    group[1] = group[1].model_copy(update={"row": group[0].row})
    for name in ("choice_accuracy", "think_format"):
        score_in_worker(REWARDS[name], {}, group, per_sample=True, timeout=PATIENT)
    assert calls == [group[0].row]


def test_completions_of_several_prompts_are_refused():
    group = [completion("a"), completion("b", of=row("C"))]
    with pytest.raises(ValueError, match="think_format: got completions of several prompts"):
        score_in_worker(REWARDS["think_format"], {}, group, per_sample=True, timeout=PATIENT)


@pytest.mark.parametrize("function", ["obeys", "never_ending_search"])
def test_the_worker_ends_with_the_job_whatever_it_does(function, tmp_path):
    trouble = tmp_path / "sleepy.py"
    trouble.write_text(TROUBLE.read_text().replace('item["response"]', '"sleep"'))
    command = [sys.executable, "-c", ORPHAN, f"{trouble}:{function}"]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    worker = psutil.Process(int(job.stdout.readline()))
    job.kill()
    job.wait()
    job.stdout.close()
    psutil.wait_procs([worker], timeout=PATIENT)
    assert not worker.is_running()
