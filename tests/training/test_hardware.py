import pytest
import torch

from rlassay.training.hardware import peak_memory_mb, require_gpus
from rlassay.training.refused import RefusedError


def test_fewer_gpus_than_declared_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    require_gpus(0)
    require_gpus(1)
    with pytest.raises(RefusedError, match=r"the study declares gpus: 2, but this job sees 1\. Raise the cap"):
        require_gpus(2)


def test_peak_memory_is_that_of_this_process():
    # A process that has imported torch holds more than 100 MiB and, in these tests, less than 100 GiB.
    assert 100 < peak_memory_mb() < 100_000
