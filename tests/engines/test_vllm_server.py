"""A trainer samples on a real vLLM server without a GPU: all but the weights, which TRL sends from GPU to GPU."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from datasets import Dataset
from trl.generation.vllm_client import VLLMClient

from rlassay.config.engine import VLLMSampler
from rlassay.layout import Layout
from rlassay.models.policy import build_policy
from rlassay.models.vllm_engine import SAMPLER_GAP
from rlassay.signals.segments import vision_token_ids
from rlassay.training import CreditGRPOTrainer
from rlassay.training.process import RefusedError
from rlassay.training.rollouts import Rollout
from rlassay.training.state import open_run
from rlassay.training.vllm import room, server
from rlassay.training.vllm.sampler import SamplerGapError, VLLMPlan, ban
from rlassay.training.vllm.server import check_server, sampling_server, sole_use
from tests.engines.qwen import save_qwen
from tests.engines.test_vllm_trainer import prompts, two_steps, variety
from tests.engines.vllm_process import needs_torchvision, needs_vllm
from tests.launcher import wait_until
from tests.models.hubs import hub, row
from tests.training.test_state import Pretender, plan

pytestmark = [needs_vllm, needs_torchvision, pytest.mark.filterwarnings("ignore")]
BETWEEN_ENGINES = 0.02
"""The trainer's log-probs count the vision tokens, which a random model likes as much as others; the bare engines
differ by less than 1e-4 (`test_vllm_trainer`)."""
LIMIT = 128
OPTIONS = [
    *("--dtype", "float32", "--enforce-eager", "--max-model-len", str(LIMIT), "--max-num-seqs", "8"),
    *("--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1", "--enable-scale-out"),
    *("--weight-transfer-config", '{"backend": "nccl"}'),
]
ENVIRONMENT = {
    **{"VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"},
    "VLLM_ENABLE_V1_MULTIPROCESSING": "1",  # a server has its engine in a process of its own
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def address(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server, which has the weights of the model on disk."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--model", str(model), *OPTIONS],
            env=os.environ | ENVIRONMENT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            return httpx.get(f"{url}/health").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    try:
        wait_until(is_up, 300)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(autouse=True)
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Weights stay where they are: TRL pushes them by NCCL, which needs GPUs. How many tensors each push would send."""
    sizes: list[int] = []
    monkeypatch.setattr(VLLMClient, "init_communicator", lambda self, device: None)
    monkeypatch.setattr(VLLMClient, "update_named_params", lambda self, about, params: sizes.append(len(about)))
    return sizes


def trainer_on(address: str, model: Path, folder: Path, *, seed: int = 11, dataset: Dataset | None = None) -> Any:
    policy, processor = build_policy(hub(model), [row(image="image.png")])
    arguments = two_steps(folder, seed=seed, vllm_mode="server", vllm_server_base_url=address)
    return CreditGRPOTrainer(
        model=policy,
        reward_funcs=variety,
        args=arguments,
        train_dataset=dataset or prompts(),
        processing_class=processor,
        vllm=VLLMPlan(max_logp_difference=BETWEEN_ENGINES),
    )


def first_step(trainer: Any) -> Rollout:
    """The rollout of the first step, after which the run stops, since the second one's weights never arrive."""
    rollouts: list[Rollout] = []
    trainer.xp_listeners.append(rollouts.append)
    with pytest.raises(SamplerGapError, match="step 2: the log-probs of vLLM and of the trainer differ by"):
        trainer.train()
    assert len(rollouts) == 1
    return rollouts[0]


def test_a_server_samples_from_the_prompts_and_images_that_are_trained_on_and_stale_weights_stop_the_run(
    address: str, model: Path, tmp_path: Path, pushed: list[int]
):
    trainer = trainer_on(address, model, tmp_path)
    first_step(trainer)
    gaps = [line[SAMPLER_GAP] for line in trainer.state.log_history if SAMPLER_GAP in line]
    assert len(gaps) == 1
    assert gaps[0] < BETWEEN_ENGINES
    tensors = len({id(each) for each in trainer.model.parameters()})
    assert pushed == [tensors, tensors]  # before each step


def test_seeds_reach_the_server(address: str, model: Path, tmp_path: Path):
    trainers = (trainer_on(address, model, tmp_path, seed=seed) for seed in (11, 11, 12))
    first, again, other = (first_step(trainer).completions for trainer in trainers)
    assert first == again
    assert len(set(first) & set(other)) < len(set(first)) / 2


def test_a_server_samples_no_image_tokens_and_its_own_limit_counts(address: str, model: Path, tmp_path: Path):
    trainer = trainer_on(address, model, tmp_path)
    generation, never = trainer.vllm_generation, vision_token_ids(trainer.model.config)

    def sampled(options: dict[str, Any]) -> set[int]:
        answer = generation.vllm_client.generate([[8, 9, 10]], n=4, generation_kwargs=options)
        return {token for ids in answer["completion_ids"] for token in ids}

    favoured = {"logit_bias": dict.fromkeys(never, 100.0)}
    assert sampled(favoured) <= set(never)
    assert not sampled(generation.generation_kwargs) & set(never)
    generation.generation_kwargs = favoured
    ban(generation, never)
    assert not sampled(generation.generation_kwargs) & set(never)
    assert room._limit(generation) == LIMIT


def test_a_server_that_cannot_forget_the_features_of_images_is_refused(
    address: str, model: Path, tmp_path: Path, pushed: list[int]
):
    generation = trainer_on(address, model, tmp_path).vllm_generation
    generation.sync_weights()
    assert len(pushed) == 1
    generation.vllm_client.reset_prefix_cache = lambda: None
    generation.vllm_client.base_url = f"{address}/v1"  # where no server has it
    with pytest.raises(RefusedError, match="answers 404 to /reset_encoder_cache, without which it would see images"):
        generation.sync_weights()


def test_a_server_that_takes_no_images_is_refused_where_prompts_have_some(
    address: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server, "_IMAGES", "/v1/nowhere")  # as without --enable-scale-out
    with pytest.raises(RefusedError, match=r"answers 404 to /v1/nowhere, .* Start it with --enable-scale-out"):
        trainer_on(address, model, tmp_path)
    texts = Dataset.from_dict({"prompt": [[{"role": "user", "content": "larger?"}]] * 4, "prompt_id": ["p"] * 4})
    first_step(trainer_on(address, model, tmp_path, dataset=texts))


def test_a_server_that_is_not_there_or_does_not_fit_is_refused(address: str, monkeypatch: pytest.MonkeyPatch):
    check_server(address)
    with pytest.raises(RefusedError, match=r"does not answer within 0 s \(.*refused\)\. Start it as VLLM_SERVER_DEV_M"):
        check_server("http://127.0.0.1:9", patience=0.0)
    with httpx.Client(base_url=f"{address}/v1") as elsewhere:
        assert "answers 404 to /server_info: it was started without VLLM_SERVER_DEV_MODE=1" in str(
            server._unfit(elsewhere)
        )
    monkeypatch.setattr(server, "package_version", lambda package: "0.1.0")
    with pytest.raises(RefusedError, match=r"is vLLM \d.*, and the trainer's vLLM is 0\.1\.0; expected one version"):
        check_server(address)


def test_the_wait_for_a_server_that_another_run_holds_is_no_time_of_the_run(address: str, tmp_path: Path):
    held = Event()

    def hold() -> None:
        with sole_use(address, "runs/other", tmp_path):
            held.set()
            time.sleep(3)

    other = Thread(target=hold)
    other.start()
    assert held.wait(10)
    engine = VLLMSampler(kind="vllm", mode="server", server_base_url=address)
    with open_run(Layout(root=tmp_path), plan()) as run, sampling_server(engine, run, tmp_path):
        other.join()
        run.finish(Pretender())  # type: ignore[arg-type]
    record = json.loads((run.state / "run.json").read_text())
    assert record["ended"] - record["started"] > 2.5
    assert json.loads(run.manifest.read_text())["seconds"] < 1
