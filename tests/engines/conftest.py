"""Settings of vLLM in tests: everything in this process, nothing compiled. Set before anything imports it or torch."""

import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

if find_spec("vllm") is not None:
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CPU_KVCACHE_SPACE="1",  # GiB
        VLLM_USE_AOT_COMPILE="0",
        VLLM_NO_USAGE_STATS="1",
        VLLM_LOGGING_LEVEL="ERROR",
        TORCHDYNAMO_DISABLE="1",  # compiling a small model takes 40 s
    )
    with warnings.catch_warnings():  # TRL imports it too; its own warnings are not ours to mend
        warnings.simplefilter("ignore")
        import vllm  # noqa: F401


@pytest.fixture
def vllm_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process as it was before vLLM ran in it: no process group, no variables of one."""
    from vllm import _custom_ops
    from vllm.distributed import cleanup_dist_env_and_memory

    # The packed weights of oneDNN kernels cannot be loaded again, as TRL does after each step.
    monkeypatch.setattr(_custom_ops, "_supports_onednn", False)
    before = dict(os.environ)
    yield
    cleanup_dist_env_and_memory()
    os.environ.clear()
    os.environ.update(before)
