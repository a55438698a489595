import os
import signal
from pathlib import Path

import pytest

from rlassay.files import write_json
from rlassay.progress import is_held
from rlassay.training.lock import locked, signals_as_exceptions
from rlassay.training.refused import RunBusyError


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rlassay.training.lock.SECONDS_FOR_A_PROBE", 0.1)
    write_json(tmp_path / "run.json", {"pid": 4711, "host": "node7"})
    with locked(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(RunBusyError, match=r"in use by process 4711 on node7.*Wait for it to finish or stop it"):
            locked(tmp_path).__enter__()
    assert not is_held(tmp_path)
    with locked(tmp_path):  # free again
        pass


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_become_exit_codes_and_handlers_are_put_back(number: signal.Signals, status: int):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as left, signals_as_exceptions():
        os.kill(os.getpid(), number)
    assert left.value.code == status
    assert signal.getsignal(number) == before
