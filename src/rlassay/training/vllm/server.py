"""A vLLM server under the trainer, which samples for one run at a time.

A run finds its own weights, and no images of earlier runs. A server has the weights that were pushed last. Two runs on
one server would sample with each other's weights, so each holds locks for its address: one on this machine, for all
users and folders, and one beside the study's results, for all machines that share them.
"""

import ipaddress
import os
import platform
import socket
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import psutil
from filelock import FileLock, Timeout

from rlassay.config.engine import RLEngine, on_server
from rlassay.config.fingerprints import package_version
from rlassay.files import read_json, write_json
from rlassay.locks import file_lock
from rlassay.ranks import PROGRESS, is_main
from rlassay.training.process import RefusedError
from rlassay.training.state import Run

LOCKS = Path("/tmp/rlassay-servers")
"""Folder of the lock files of this machine, for all of its users."""
SHARED = ".servers"
"""Folder of the lock files beside the results of studies."""
PATIENCE = 240.0
"""Seconds to wait for a server that is starting."""
POLL = 2.0
"""Seconds between two looks whether it is up."""
TIMEOUT = 30.0
"""Seconds within which a server has to say what it is."""
START = (
    'Start it as VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config \'{"backend": "nccl"}\' '
    "--logprobs-mode processed_logprobs --max-logprobs -1, for images with --enable-scale-out"
)
"""How a server is started that TRL can push weights to."""
_IMAGES = "/v1/chat/completions/render"
"""Where TRL sends the images of a prompt; vLLM serves it with --enable-scale-out alone."""
_PORTS = {"http": 80, "https": 443}


@contextmanager
def sampling_server(engine: RLEngine, run: Run, results: Path) -> Generator[None, None, None]:
    """Hold the server that a run samples on; nothing for other engines, or where nothing is to be done.

    Errors: RefusedError, see `check_server`.
    """
    address = on_server(engine)
    if address is None or run.finished or not is_main():
        yield
        return
    with ExitStack() as held:
        with run.waiting():
            held.enter_context(sole_use(address, str(run.folder), results))
            with PROGRESS.patient():
                check_server(address)
        yield


def check_server(address: str, patience: float = PATIENCE) -> None:
    """Refuse a server that TRL cannot send weights to, or with the wrong log-probs.

    The right ones are those of the distribution that it samples from.

    Args:
        address: URL of the server.
        patience: seconds to wait for a server that is starting.

    Errors: RefusedError with what is wrong and how to start the server.
    """
    with httpx.Client(base_url=address, timeout=TIMEOUT) as client:
        if (problem := _unreachable(client, patience) or _unfit(client)) is not None:
            raise RefusedError(f"the vLLM server at {address} (rl.engine.server_base_url) {problem}. {START}")


def _unreachable(client: httpx.Client, patience: float) -> str | None:
    """That a server does not answer, in words; None once it is up."""
    deadline = time.monotonic() + patience
    while True:
        try:
            answer = client.get("/health").status_code
        except httpx.TransportError as error:
            answer = str(error) or type(error).__name__
        if answer == HTTPStatus.OK:
            return None
        if time.monotonic() > deadline:
            return f"does not answer within {patience:g} s ({answer})"
        time.sleep(POLL)


def _unfit(client: httpx.Client) -> str | None:
    """What a server lacks, in words; None where it fits."""
    answer = client.get("/server_info", params={"config_format": "json"})
    if answer.status_code != HTTPStatus.OK:
        return f"answers {answer.status_code} to /server_info: it was started without VLLM_SERVER_DEV_MODE=1"
    theirs, ours = client.get("/version").json()["version"], package_version("vllm") or "missing"
    if theirs.split("+")[0] != ours.split("+")[0]:  # the same version for another device
        return f"is vLLM {theirs}, and the trainer's vLLM is {ours}; expected one version"
    config = answer.json()["vllm_config"]
    if config["weight_transfer_config"] is None:
        return "takes no weights: it was started without --weight-transfer-config"
    mode = config["model_config"]["logprobs_mode"]
    if mode != "processed_logprobs":
        return f"gives {mode}, and the trainer compares processed_logprobs"
    return None


@contextmanager
def sole_use(address: str, run: str, results: Path, locks: Path | None = None) -> Generator[None, None, None]:
    """Hold a vLLM server while the body runs; wait, and say for which run, while another one holds it.

    Args:
        address: URL of the server.
        run: the folder of the run that samples on it.
        results: folder of the results of all studies.
        locks: folder of the lock files of this machine; None takes `LOCKS`.
    """
    own = locks or LOCKS
    name = server_name(address)
    shared = results / SHARED
    for folder in (own, shared):
        folder.mkdir(parents=True, exist_ok=True)
    if locks is None:
        with suppress(PermissionError):  # the folder of another user, who has opened it to all
            own.chmod(0o777)
    with ExitStack() as held:
        for lock in (FileLock(own / f"{name}.lock", mode=0o666), file_lock(shared / f"{name}.lock")):
            _wait_for(lock, _holder(Path(lock.lock_file)), address)
            held.callback(lock.release)
            write_json(_holder(Path(lock.lock_file)), {"run": run, "pid": os.getpid(), "host": platform.node()})
        yield


def _wait_for(lock: Any, holder: Path, address: str) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        about = {"run": "another run", "pid": "unknown", "host": "an unknown host"} | (read_json(holder) or {})
        print(
            f"waiting for the vLLM server at {address}: {about['run']} samples on it (process {about['pid']} on "
            f"{about['host']}), and two runs on one server would sample with each other's weights. This job starts "
            "when that one ends; to run both at once, start a second server and name it in rl.engine.server_base_url",
            file=sys.stderr,
            flush=True,
        )
        with PROGRESS.patient():
            lock.acquire(timeout=-1)


def _holder(lock: Path) -> Path:
    """The file that says which run holds a lock."""
    return lock.with_name(f"{lock.name}.json")


def group_port() -> int:
    """A free port at which the workers of a server meet the trainer; TRL has one for all runs of a machine."""
    import accelerate  # pyright: ignore[reportMissingTypeStubs] - takes seconds to import

    return cast(Any, accelerate).utils.other.get_free_port()


def server_name(address: str) -> str:
    """Host and port of a server, the same for all addresses of this machine: `node17_8000`."""
    parts = urlsplit(address)
    host = parts.hostname or address
    if _is_here(host):
        host = platform.node()
    with suppress(ValueError):
        return f"{ipaddress.ip_address(host)}_{_port(parts)}".replace(":", "-")
    return f"{host.split('.')[0].lower()}_{_port(parts)}"


def _port(parts: Any) -> int:
    return parts.port or _PORTS.get(parts.scheme, 80)


def _is_here(host: str) -> bool:
    """Whether a name or an IP address is that of this machine."""
    own = {each.address for of_card in psutil.net_if_addrs().values() for each in of_card} | {"0.0.0.0", "::"}
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
    except OSError:  # a name that this machine cannot resolve
        return False
    return any(each in own or ipaddress.ip_address(each).is_loopback for each in found)


def prepare_images_on_server(generation: Any) -> None:
    """Require that a vLLM server takes images, and forgets their features with new weights.

    Args:
        generation: TRL's `VLLMGeneration` in `server` mode, on the process that talks to the server.

    Errors: RefusedError if the server takes no images; from `generation.sync_weights`, if it cannot forget them.
    """
    sync_weights, client = generation.sync_weights, generation.vllm_client
    if client.session.post(f"{client.base_url}{_IMAGES}", json={}).status_code == HTTPStatus.NOT_FOUND:
        raise RefusedError(
            f"the vLLM server at {client.base_url} answers {HTTPStatus.NOT_FOUND} to {_IMAGES}, by which it gets the "
            "images of prompts. Start it with --enable-scale-out, or set rl.engine.mode to colocate"
        )

    def sync_and_empty() -> None:
        sync_weights()
        answer = client.session.post(f"{client.base_url}/reset_encoder_cache")
        if answer.status_code != HTTPStatus.OK:
            raise RefusedError(
                f"the vLLM server at {client.base_url} answers {answer.status_code} to /reset_encoder_cache, without "
                "which it would see images by its vision tower of earlier steps. Start it with VLLM_SERVER_DEV_MODE=1 "
                "in its environment, or set rl.engine.mode to colocate"
            )

    generation.sync_weights = sync_and_empty
