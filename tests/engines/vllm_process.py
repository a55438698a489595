"""vLLM in a test's own process: its settings, and a process that is afterwards as it was before."""

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

HAS_VLLM, HAS_TORCHVISION = (find_spec(name) is not None for name in ("vllm", "torchvision"))
needs_vllm = pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed: make .venv-vllm, then make test")
needs_torchvision = pytest.mark.skipif(
    not HAS_TORCHVISION, reason="Qwen-VL's processor needs torchvision: make .venv-vllm, then make test"
)


def set_up() -> None:
    """Let vLLM do all in this process and compile nothing; to be called before anything imports it, as TRL does."""
    if not HAS_VLLM:
        return
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CPU_KVCACHE_SPACE="1",  # GiB
        VLLM_USE_AOT_COMPILE="0",
        VLLM_NO_USAGE_STATS="1",
        VLLM_LOGGING_LEVEL="ERROR",
        TORCHDYNAMO_DISABLE="1",  # compiling a small model takes 40 s
    )
    with warnings.catch_warnings():  # the warnings of vLLM itself
        warnings.simplefilter("ignore")
        import vllm  # noqa: F401


@contextmanager
def vllm_process() -> Iterator[pytest.MonkeyPatch]:
    """Let vLLM run on this CPU, and take down its process group and its variables afterwards.

    Yields what else the test may patch meanwhile.
    """
    from vllm import _custom_ops
    from vllm.distributed import cleanup_dist_env_and_memory

    before = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Weights packed for oneDNN's kernels cannot be loaded again, as TRL does after each step.
        patch.setattr(_custom_ops, "_supports_onednn", False)
        try:
            yield patch
        finally:
            gc.collect()  # an engine shuts its groups down when it goes, also the groups of another
            cleanup_dist_env_and_memory()
            os.environ.clear()
            os.environ.update(before)
