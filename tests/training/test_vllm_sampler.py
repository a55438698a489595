import os
import socket
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from trl.generation import vllm_generation

from rlassay.images import Clip
from rlassay.models.vllm_engine import SAMPLER_GAP, collapse_runs
from rlassay.training.algorithms.sampling_seeds import SamplingSeeds
from rlassay.training.vllm import sampler
from rlassay.training.vllm.sampler import SamplerGapError, VLLMPlan, VLLMSampling, ban, patch_vllm_images

IMAGE = 5


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_job_of_one_process_opens_vllm_on_a_free_port(monkeypatch: pytest.MonkeyPatch, processes: str):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        monkeypatch.setattr(vllm_generation, "LLM", object, raising=False)
        monkeypatch.setattr(sampler, "trainable_on_cpu", lambda on_cpu: nullcontext())
        monkeypatch.setenv("MASTER_PORT", taken)
        monkeypatch.setenv("WORLD_SIZE", processes)
        with VLLMSampling(VLLMPlan(), SamplingSeeds()).opening():
            port = os.environ["MASTER_PORT"]
    assert (port == taken) == (processes == "2")  # processes of one job have agreed on theirs


class Generation:
    """TRL's interface to vLLM: expands each image token to `size` tokens, and samples the token 8."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.generation_kwargs: dict[str, Any] = {"seed": 3}
        self.sent: list[list[int]] = []
        self.done: list[str] = []
        engine = SimpleNamespace(reset_encoder_cache=lambda: self.done.append("emptied"))
        self.llm = SimpleNamespace(llm_engine=engine, generate=lambda rows, **_: rows)

    def sync_weights(self) -> None:
        self.done.append("synced")

    def generate(self, *, prompts: list[list[int]], images: Any, num_generations: int) -> tuple[Any, ...]:
        self.sent = prompts
        read = [[each for token in ids for each in [token] * (self.size if token == IMAGE else 1)] for ids in prompts]
        return read, [[8]] * len(prompts), None, None


def test_only_runs_of_the_token_are_shortened():
    assert collapse_runs([1, 5, 5, 5, 2, 2, 5, 1], IMAGE) == [1, 5, 2, 2, 5, 1]
    assert collapse_runs([], IMAGE) == []


def test_each_image_is_sent_as_one_token():
    generation = Generation(size=3)
    patch_vllm_images(generation, IMAGE)

    results = generation.generate(prompts=[[1, 5, 5, 5, 2], [1, 2]], images=[["image"], None], num_generations=2)

    assert generation.sent == [[1, 5, 2], [1, 2]]
    assert results == ([[1, 5, 5, 5, 2], [1, 2]], [[8], [8]], None, None)


def test_banned_tokens_join_the_users_own_bias_and_beat_it():
    generation = Generation(size=3)
    ban(generation, [IMAGE, 6])

    assert generation.generation_kwargs == {"logit_bias": {IMAGE: -100.0, 6: -100.0}, "seed": 3}

    generation.generation_kwargs = {"logit_bias": {"5": 50.0, "9": 2.0}}
    ban(generation, [IMAGE])

    assert generation.generation_kwargs == {"logit_bias": {9: 2.0, IMAGE: -100.0}}


def test_a_prompt_that_vllm_reads_differently_is_an_error():
    generation = Generation(size=4)
    patch_vllm_images(generation, IMAGE)

    with pytest.raises(ValueError, match="read a prompt of 6 tokens where the processor writes 5"):
        generation.generate(prompts=[[1, 5, 5, 5, 2]], images=[["image"]], num_generations=1)


def test_the_image_cache_is_emptied_after_the_weights_change():
    generation = Generation(size=3)
    patch_vllm_images(generation, IMAGE)

    generation.sync_weights()

    assert generation.done == ["synced", "emptied"]


class Model(torch.nn.Module):
    """A text model, as the sampler looks at it."""

    config = SimpleNamespace(model_type="qwen2")


def trainer_at(step: int, *, mode: str = "colocate", seed: int = 1, process: int = 0, parallel: int = 1) -> Any:
    """The parts of a trainer that the sampler reads; its vLLM samples one number from torch's random state."""
    llm = SimpleNamespace(generate=lambda: torch.randint(10**9, ()).item())
    whole = SimpleNamespace(zero_stage=0, fsdp_version=None)
    generation = SimpleNamespace(
        llm=llm, tensor_parallel_size=parallel, generation_kwargs={"min_tokens": 2}, _dist=whole
    )
    generation.generate = lambda: dict(generation.generation_kwargs)
    return SimpleNamespace(
        use_vllm=True,
        vllm_mode=mode,
        vllm_generation=generation,
        accelerator=SimpleNamespace(process_index=process, unwrap_model=lambda model: model),
        state=SimpleNamespace(global_step=step),
        args=SimpleNamespace(seed=seed),
        model=Model(),
        _is_vlm=False,
        _metrics={"train": {SAMPLER_GAP: []}},
    )


def draws(step: int, calls: int = 1, **about: Any) -> list[int]:
    trainer = trainer_at(step, **about)
    VLLMSampling(None, SamplingSeeds()).prepare(trainer)
    return [trainer.vllm_generation.llm.generate() for _ in range(calls)]


def test_a_call_of_vllm_is_seeded_by_run_step_call_and_group():
    first, second = draws(3, calls=2)

    assert draws(3) == [first]
    assert len({first, second, *draws(4), *draws(3, seed=2), *draws(3, process=1)}) == 5
    # Processes 0 and 1 share a copy of the model, and have to draw the same tokens.
    assert draws(3, process=1, parallel=2) == [first]


def test_prompts_that_leave_too_little_room_are_refused_before_vllm_cuts_completions():
    trainer = trainer_at(3)
    generation = trainer.vllm_generation
    generation.max_completion_length = 6
    generation.llm.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=16))
    generation.generate = lambda prompts, images: (prompts, images)
    VLLMSampling(None, SamplingSeeds()).prepare(trainer)

    assert generation.generate(prompts=[[1] * 10], images=None) == ([[1] * 10], None)
    with pytest.raises(ValueError, match=r"takes 16 tokens, and a prompt has 11, .* adds 6; expected"):
        generation.generate(prompts=[[1], [1] * 11], images=None)


def test_calls_are_counted_from_the_step_so_that_a_resumed_run_repeats_them():
    trainer = trainer_at(3)
    VLLMSampling(None, SamplingSeeds()).prepare(trainer)
    trainer.vllm_generation.llm.generate()
    trainer.state.global_step = 4

    assert [trainer.vllm_generation.llm.generate()] == draws(4)


def test_the_trainers_random_state_is_left_as_it_was():
    before = torch.get_rng_state()

    draws(3)

    assert torch.equal(torch.get_rng_state(), before)


def test_a_server_is_seeded_through_its_requests():
    trainer = trainer_at(3, mode="server")
    VLLMSampling(None, SamplingSeeds()).prepare(trainer)
    first, second = (trainer.vllm_generation.generate() for _ in range(2))

    assert first["min_tokens"] == second["min_tokens"] == 2
    assert first["seed"] != second["seed"]


@pytest.mark.parametrize("mode", ["colocate", "server"])
@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl"])
def test_weights_of_a_renamed_tower_are_pushed_under_the_names_of_vllm(mode: str, kind: str):
    trainer = trainer_at(3, mode=mode)
    trainer.model.config = SimpleNamespace(model_type=kind)
    names = ["model.vision_tower.encoder.weight", "lm_head.weight"]
    trainer.vllm_generation._iter_named_params = lambda: iter([(name, None) for name in names])

    VLLMSampling(None, SamplingSeeds()).prepare(trainer)

    pushed = [name for name, _ in trainer.vllm_generation._iter_named_params()]
    tower = "model.vision_tower.vision_model.encoder.weight" if kind == "llava" else names[0]
    assert pushed == [tower, "lm_head.weight"]


@pytest.mark.parametrize("gap", [0.3, float("nan")])
def test_a_gap_beyond_the_limit_stops_the_run(gap: float):
    trainer = trainer_at(3)
    trainer._metrics["train"][SAMPLER_GAP] = [0.01, gap]

    with pytest.raises(SamplerGapError, match=r"step 4: .* differ by (0.3|nan) nats per token on average, expected at"):
        VLLMSampling(VLLMPlan(max_logp_difference=0.2), SamplingSeeds()).check(trainer, {})


@pytest.mark.parametrize("plan", [VLLMPlan(), VLLMPlan(max_logp_difference=0.4)])
def test_a_gap_within_the_limit_or_without_one_goes_on(plan: VLLMPlan):
    trainer = trainer_at(3)
    trainer._metrics["train"][SAMPLER_GAP] = [0.9, 0.3]

    VLLMSampling(plan, SamplingSeeds()).check(trainer, {})


def test_without_the_correction_every_ratio_is_one():
    trainer, ratio = trainer_at(3), torch.tensor([[0.5], [2.0]])
    corrected, plain = {"importance_sampling_ratio": ratio}, {"importance_sampling_ratio": ratio}

    VLLMSampling(VLLMPlan(), SamplingSeeds()).check(trainer, corrected)
    VLLMSampling(VLLMPlan(importance_sampling_correction=False), SamplingSeeds()).check(trainer, plain)

    assert corrected["importance_sampling_ratio"].tolist() == [[0.5], [2.0]]
    assert plain["importance_sampling_ratio"].tolist() == [[1.0], [1.0]]


def test_clips_are_sent_as_videos_beside_the_images():
    generation = Generation(size=3)
    patch_vllm_images(generation, IMAGE)
    image = Image.new("RGB", (4, 4))
    clip = Clip(frames=(image, image), times=(0.0, 0.5), duration=1.0, fps=2.0)
    with_clip, plain = (
        {"prompt_token_ids": [1], "multi_modal_data": {"image": each}} for each in ([image, clip], image)
    )

    sent = generation.llm.generate([with_clip, plain])

    assert sent[0]["multi_modal_data"]["image"] == [image]
    ((frames, about),) = sent[0]["multi_modal_data"]["video"]
    assert len(frames) == 2
    assert (about["duration"], about["do_sample_frames"]) == (1.0, False)
    assert sent[1] is plain
