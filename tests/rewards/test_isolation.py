import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rlassay.rewards import REWARDS
from rlassay.rewards.outcomes import Failure, RewardError, WrongOutputError
from rlassay.rewards.sandbox.child_process import child_process
from rlassay.rewards.sandbox.isolation import WORKER, judge_in_worker
from tests.rewards.make import completion, row

TROUBLE = Path(__file__).parent / "trouble.py"
PATIENT = 60.0  # s, which no test waits for
ORPHAN = f"""
import sys
from rlassay.records import Completion, PromptRow
from rlassay.rewards.sandbox.child_process import child_process
from rlassay.rewards.sandbox.isolation import WORKER, judge_in_worker
row = PromptRow(prompt_id="p", question="?", answer="B")
group = [Completion(text="", token_count=1, finished=True, row=row)]
judge_in_worker("think_format", {{}}, group, timeout={PATIENT})
print(child_process(WORKER).running(), flush=True)
judge_in_worker("custom", {{"path": sys.argv[1]}}, group, timeout=3600)
"""


def judge(*texts, function="does_as_told", timeout=PATIENT, **options):
    """Outcomes of a group with these texts of 1, 2, 3, ... tokens, by a function of `trouble.py`."""
    group = [completion(text, token_count=count) for count, text in enumerate(texts, 1)]
    return judge_in_worker("custom", {"path": f"{TROUBLE}:{function}", **options}, group, timeout=timeout)


def test_values_are_those_of_the_function_itself():
    signals = {"modality_dominance/late": 1.5, "modality_dominance/all": 40.0}
    group = [completion(f"<answer>B</answer>{'ж' * 70_000}", token_count=9, of=row("B"), signals=signals)] * 3
    for name, options in {"choice_accuracy": {}, "modality_balance": {"ratio": 3.0}, "vision_gain": {}}.items():
        assert judge_in_worker(name, options, group, timeout=PATIENT) == REWARDS[name](group, **options)
    assert judge_in_worker("choice_accuracy", {}, [], timeout=PATIENT) == []


def test_it_starts_once_and_loads_no_torch():
    judge("a")
    worker = child_process(WORKER).running()
    assert worker is not None
    judge("a", "b")
    assert child_process(WORKER).running() == worker
    libraries = {Path(region.path).name for region in psutil.Process(worker).memory_maps()}
    assert not {name for name in libraries if "torch" in name}
    assert psutil.Process(worker).num_threads() <= 2  # and the one that watches for the parent's end


@pytest.mark.parametrize(
    ("said", "text"),
    [("raise", "KeyError: 'gold'"), ("sys.exit", "SystemExit: 3"), ("interrupt", "KeyboardInterrupt: ")],
)
def test_an_exception_costs_its_completion_alone(said, text):
    judge("a")
    worker = child_process(WORKER).running()
    assert judge("a", said, "c") == [0.1, Failure(kind="error", text=text), 0.3]
    assert child_process(WORKER).running() == worker


@pytest.mark.parametrize("said", ["print", "read"])
def test_what_it_prints_and_reads_disturbs_nothing(said, capfd):
    assert judge("a", said, "c") == [0.1, 0.2, 0.3]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("said", "how"), [("os._exit", "exit status 3"), ("segfault", "SIGSEGV")])
def test_a_crash_costs_its_completion_alone(said, how):
    outcomes = judge("a", said, "c", said)
    failures = [each for each in outcomes if isinstance(each, Failure)]
    assert outcomes == [0.1, failures[0], 0.3, failures[1]]
    assert [each.kind for each in failures] == ["crash", "crash"]
    assert failures[0].text.startswith(f"the process died ({how})")


def test_too_slow_a_completion_costs_itself_alone():
    judge("a")
    failure = Failure(kind="timeout", text="no value within 2 s")
    assert judge("a", "sleep", "c", timeout=2.0) == [0.1, failure, 0.3]


def test_values_that_are_not_finite_fail():
    kinds = [each.kind if isinstance(each, Failure) else each for each in judge("nan", "b", "inf", "none")]
    assert kinds == ["not_finite", 0.2, "not_finite", None]


def test_a_failure_costs_a_reward_of_groups_its_group():
    assert (
        judge("a", "raise", function="group_does_as_told", batch=True)
        == [Failure(kind="error", text="KeyError: 'gold'")] * 2
    )
    failures = judge("a", "os._exit", "c", function="group_does_as_told", batch=True)
    assert [each.kind for each in failures if isinstance(each, Failure)] == ["crash"] * 3


def test_a_wrong_output_is_an_error():
    with pytest.raises(WrongOutputError, match=r"^custom .*: got 1 values for 2 completions$"):
        judge("a", "too few", function="group_does_as_told", batch=True)
    with pytest.raises(WrongOutputError, match="got 'good'; expected a number"):
        judge("a", "text")
    assert judge("a") == [0.1]


def test_a_reward_that_cannot_be_loaded_is_an_error():
    with pytest.raises(RewardError, match=r"it cannot be loaded: ValueError: path: no function 'nothing' in"):
        judge("a", function="nothing")


def test_a_worker_that_died_between_two_questions_is_replaced():
    judge("a")
    worker = psutil.Process(child_process(WORKER).running())
    worker.kill()
    worker.wait()
    assert judge("a", "b") == [0.1, 0.2]


def test_completions_of_several_prompts_are_refused():
    group = [completion("a"), completion("b", of=row("C"))]
    with pytest.raises(ValueError, match="think_format: got completions of several prompts"):
        judge_in_worker("think_format", {}, group, timeout=PATIENT)


@pytest.mark.parametrize("function", ["does_as_told", "never_ending_search"])
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
