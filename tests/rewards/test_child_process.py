"""A real child process that obeys, prints, hangs, dies or does not start."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from rlassay.rewards.sandbox.child_process import ChildDeathError, ChildError, ChildProcess, StartError, child_process

SERVER = "tests.rewards.echo_server"
LONG = 60.0  # s; no test waits that long
ORPHAN = f"""
from rlassay.rewards.sandbox.child_process import ChildProcess
child = ChildProcess({SERVER!r})
child.ask(1, {LONG})
print(child.pid(), flush=True)
child.ask("sleep", 3600)
"""


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    process = ChildProcess(SERVER)
    yield process
    process.stop()


def test_replies_are_exact_whatever_the_child_prints(child):
    questions = [{"a": [1, None, "ж\n"]}, "x" * 1_000_000, None]
    assert [child.ask(question, LONG) for question in questions] == questions


def test_it_starts_with_the_first_question_and_once(child):
    assert child.pid() is None
    child.ask(1, LONG)
    first = child.pid()
    child.ask(2, LONG)
    assert child.pid() == first is not None


def test_threads_take_turns(child):
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: child.ask(number, LONG), range(20))) == list(range(20))


def test_an_error_is_raised_in_the_parent_and_the_process_lives(child):
    with pytest.raises(ChildError, match=r"^ZeroDivisionError: by zero$"):
        child.ask("raise", LONG)
    first = child.pid()
    assert child.ask(1, LONG) == 1
    assert child.pid() == first


@pytest.mark.parametrize("question", ["sleep", "x" * 1_000_000])  # more than a pipe holds
def test_after_a_timeout_the_next_question_starts_another_process(child, question):
    child.ask(1, LONG)
    first = child.pid()
    os.kill(first, signal.SIGSTOP)  # it will not answer however fast this machine is
    with pytest.raises(TimeoutError, match=r"no reply within 0\.2 s"):
        child.ask(question, 0.2)
    assert child.ask(2, LONG) == 2
    assert child.pid() != first
    assert not psutil.pid_exists(first)


def test_a_death_is_raised_with_the_end_of_stderr_and_the_next_question_starts_another_process(child):
    with pytest.raises(
        ChildError, match=r"^the process died \(exit status 3\); end of its stderr:\n(.*\n)*the last words$"
    ):
        child.ask("die", LONG)
    assert child.ask(1, LONG) == 1


def test_a_death_between_two_questions_is_noticed(child):
    child.ask(1, LONG)
    process = psutil.Process(child.pid())
    process.kill()
    process.wait()
    with pytest.raises(ChildError, match="the process died"):
        child.ask(2, LONG)
    assert child.ask(3, LONG) == 3


def test_a_failed_start_says_why_and_is_not_repeated():
    child = ChildProcess(SERVER, ("refuse",))
    for _ in range(2):
        with pytest.raises(StartError, match=r"(?s)echo_server does not start: .*ValueError: there is no model 'x'$"):
            child.ask(1, LONG)
        child.command[-1] = "start"  # it would start now


def test_a_slow_start_fails():
    with pytest.raises(StartError, match=r"does not start: no reply within 0 s"):
        ChildProcess(SERVER, start_seconds=0.0).ask(1, LONG)


def test_several_replies_end_at_the_first_problem(child):
    assert child.ask_for_replies({"each": [1, 2, 3]}, [LONG] * 3) == ([1, 2, 3], None)
    for said, kind in {"raise": ChildError, "die": ChildDeathError}.items():
        replies, problem = child.ask_for_replies({"each": [1, said, 3]}, [LONG] * 3)
        assert replies == [1]
        assert type(problem) is kind
    replies, problem = child.ask_for_replies({"each": [1, "sleep", 3]}, [LONG, 0.5, LONG])
    assert (replies, type(problem)) == ([1], TimeoutError)
    assert child.ask(2, LONG) == 2


def test_its_stdin_is_empty(child):
    assert child.ask("read", LONG) == ""
    assert child.ask(1, LONG) == 1


def test_a_forked_program_leaves_its_parents_child_alone(child):
    child.ask(1, LONG)
    first = child.pid()
    forked = os.fork()
    if not forked:
        child.stop()  # as at its exit
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert child.ask(2, LONG) == 2
    assert child.pid() == first


def test_there_is_one_process_per_module_and_arguments():
    assert child_process("m", "a") is child_process("m", "a")
    assert child_process("m", "a") is not child_process("m", "b")


def test_it_ends_with_its_parent_even_in_the_middle_of_a_question():
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([child], timeout=LONG)
    assert not child.is_running()
