"""Build `.venv-vllm` on top of `.venv`: CPU vLLM and torchvision, for the tests in tests/engines.

It reads the packages of `.venv` through a `.pth` file and holds only what differs (see `vllm.txt`), so that it takes a
third of the time and space of an environment of its own. It is rebuilt when one of its files changed, and a build
that fails leaves nothing behind. A GPU machine needs none of this: environment.yml has vLLM and torchvision for GPUs.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import build_venv

VENV = Path(".venv-vllm")
PINS = Path("workflow/vllm.txt")
HOOK = Path("workflow/torchvision_on_cpu.py")
INPUTS = (*build_venv.INPUTS, PINS, HOOK, Path("workflow/build_vllm.py"))


def main():
    """Wait for another build to end, build when something changed."""
    build_venv.build_once(VENV, INPUTS, build)


def build():
    """Create the environment, let it see `.venv`, and add what differs."""
    shutil.rmtree(VENV, ignore_errors=True)
    print("Installing vLLM for CPUs into .venv-vllm (a minute) ...", flush=True)
    try:
        build_venv.run(sys.executable, "-m", "venv", "--without-pip", VENV)
        connect(VENV / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix))
        build_venv.run(
            *(VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", "-r", PINS)
        )
    except BaseException:
        shutil.rmtree(VENV, ignore_errors=True)
        raise


def connect(packages):
    """Make the packages of `.venv` importable behind those of this environment, and torchvision on a CPU torch."""
    # addsitedir and not the bare path: it reads the .pth files there, one of which names this project's sources.
    base = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (packages / "zz_packages_of_venv.pth").write_text(base)
    shutil.copy(HOOK, packages)
    (packages / "torchvision_on_cpu.pth").write_text("import torchvision_on_cpu\n")


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    main()
