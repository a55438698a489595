# pyright: basic
# (TRL leaves most attributes of a trainer open)
"""vLLM under TRL's trainer: options, seeds, images, and its gap to the trainer."""

import os
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate.utils.other import get_free_port
from trl.generation import vllm_generation

from rlassay.images import Clip
from rlassay.models.video_input import vllm_media
from rlassay.models.vllm_engine import (
    NEVER,
    RENAMED,
    SAMPLER_GAP,
    check_lengths,
    check_prompts,
    collapse_runs,
    trainable_on_cpu,
    vllm_name,
)
from rlassay.ranks import PROGRESS
from rlassay.signals.segments import vision_token_ids
from rlassay.training.algorithms.sampling_seeds import SamplingSeeds
from rlassay.training.process import RefusedError
from rlassay.training.vllm.server import prepare_images_on_server

FSDP2 = 2
"""The version of FSDP whose weights `rlassay.training.scale.strategy.whole_weights` gathers."""


class SamplerGapError(RefusedError):
    """Error: vLLM samples from another distribution than the policy that is trained."""


@dataclass(frozen=True, kw_only=True)
class VLLMPlan:
    """Settings of vLLM under the trainer that TRL has no argument for.

    The gap is measured in the pass that TRL's importance-sampling correction makes. Without the correction, leave TRL's
    argument on and set `importance_sampling_correction=False` here: the pass is made, and its ratios are replaced by 1.
    """

    dtype: str | None = None
    """Type of its weights; None is vLLM's choice, which is half precision for a model in single."""
    enable_prefix_caching: bool | None = None
    """Whether prompts that begin alike share their keys and values; None is vLLM's choice."""
    load_format: str | None = None
    """`dummy` reads no weights from disk: the trainer pushes its own before the first completion."""
    importance_sampling_correction: bool = True
    """Whether the loss is multiplied by TRL's ratios."""
    max_logp_difference: float | None = None
    """Largest value of `sampling/sampling_logp_difference/mean`, nats; beyond it the run stops. None never stops it."""


@dataclass(frozen=True, kw_only=True)
class ClipPrompt:
    """A prompt of a batch with clips, as vLLM takes it."""

    ids: list[int]
    """Its tokens before the processor has written out images and clips, which vLLM does itself."""
    media: list[Any]
    """Its images and clips; empty for text."""


class VLLMSampling:
    """vLLM under one trainer; without `use_vllm` it does nothing."""

    def __init__(self, plan: VLLMPlan | None, seeds: SamplingSeeds) -> None:
        self.plan = plan or VLLMPlan()
        self.seeds = seeds
        self.clip_prompts: list[ClipPrompt] | None = None
        """The prompts of the next call if any has clips; None without."""

    @contextmanager
    def opening(self) -> Generator[None, None, None]:
        """In the body TRL opens vLLM with the plan's options; on CPU, weights can be pushed and nothing is compiled."""
        trl: Any = vllm_generation
        known = getattr(trl, "LLM", None)
        if known is None:  # vLLM is not installed
            yield
            return
        if os.environ.get("WORLD_SIZE", "1") == "1":
            # TRL tries port 29500 first, and assumes that it is free even if the vLLM of another job listens on it.
            os.environ["MASTER_PORT"] = str(get_free_port())
        on_cpu = not torch.cuda.is_available()
        names = ("dtype", "enable_prefix_caching", "load_format")
        options = {name: value for name in names if (value := getattr(self.plan, name)) is not None}
        trl.LLM = partial(known, **options | ({"enforce_eager": True} if on_cpu else {}))
        try:
            with trainable_on_cpu(on_cpu=on_cpu):
                yield
        finally:
            trl.LLM = known

    def prepare(self, trainer: Any) -> None:
        """Seed vLLM, and make it see images as the trained policy does."""
        if not trainer.use_vllm:
            return
        generation = trainer.vllm_generation
        config = trainer.accelerator.unwrap_model(trainer.model).config
        if trainer._is_vlm:
            ban(generation, vision_token_ids(config))
        self._seed(trainer, generation)
        _push_whole_weights(generation)
        if config.model_type in RENAMED:
            _rename(generation)
        if trainer._is_vlm and trainer.vllm_mode == "colocate":
            patch_vllm_images(generation, trainer.processing_class.image_token_id, lambda: self.clip_prompts)
        elif trainer._is_vlm and trainer.accelerator.is_main_process and _shows_images(trainer):
            prepare_images_on_server(generation)
        if trainer.vllm_mode == "colocate":  # a server refuses such requests itself
            _leave_room(generation)

    def _seed(self, trainer: Any, generation: Any) -> None:
        """Give every call of vLLM a seed of its own, see `SamplingSeeds`.

        TRL seeds a colocated vLLM by the number of the process alone.
        """
        if trainer.vllm_mode == "server":
            generate, given = generation.generate, generation.generation_kwargs

            def seeded_on_server(*args: Any, **options: Any) -> Any:
                generation.generation_kwargs = {**given, "seed": self.seeds.next(trainer, 0)}
                with PROGRESS.patient():  # the client has a time limit of its own
                    return generate(*args, **options)

            generation.generate = seeded_on_server
            return
        # The processes of one tensor-parallel group have to draw the same tokens.
        group = trainer.accelerator.process_index // generation.tensor_parallel_size
        sample = generation.llm.generate

        def seeded(*args: Any, **options: Any) -> Any:
            with self.seeds.seeded(trainer, group):
                return sample(*args, **options)

        generation.llm.generate = seeded

    def check(self, trainer: Any, output: dict[str, Any]) -> None:
        """Stop the run if vLLM is too far from the trainer; without correction, set TRL's ratios to 1.

        Errors: SamplerGapError naming step, gap and limit.
        """
        if not trainer.use_vllm:
            return
        if not self.plan.importance_sampling_correction and "importance_sampling_ratio" in output:
            output["importance_sampling_ratio"] = torch.ones_like(output["importance_sampling_ratio"])
        gaps, limit = (
            trainer._metrics["train" if trainer.model.training else "eval"][SAMPLER_GAP],
            self.plan.max_logp_difference,
        )
        if limit is not None and gaps and not gaps[-1] <= limit:  # NaN stops it too
            raise SamplerGapError(
                f"step {trainer.state.global_step + 1}: the log-probs of vLLM and of the trainer differ by "
                f"{gaps[-1]:.3g} nats per token on average, expected at most {limit:g} "
                "(rl.engine.max_logp_difference). vLLM samples with other weights (stale, or without the adapter), "
                "other images, or another template than the trainer; or it computes in another precision: then raise "
                "the limit"
            )


def _shows_images(trainer: Any) -> bool:
    """Whether prompts have images, by the columns that TRL reads."""
    return not {"image", "images"}.isdisjoint(next(iter(trainer.train_dataset)))


def _leave_room(generation: Any) -> None:
    """Check before each call that no completion will be cut."""
    generate = generation.generate

    def checked(*, prompts: list[list[int]], **others: Any) -> tuple[Any, ...]:
        check_lengths(prompts, generation.max_completion_length, generation.llm)
        return generate(prompts=prompts, **others)

    generation.generate = checked


def _push_whole_weights(generation: Any) -> None:
    """Push weights as they are, since the trainer has gathered them before it samples."""
    backend = generation._dist
    backend.zero_stage = 0
    if backend.fsdp_version == FSDP2:
        backend.fsdp_version = None


def _rename(generation: Any) -> None:
    """Push the layers of a vision tower under vLLM's names."""
    params = generation._iter_named_params

    def renamed() -> Generator[tuple[str, Any], None, None]:
        for name, param in params():
            yield vllm_name(name), param

    generation._iter_named_params = renamed


def ban(generation: Any, token_ids: Iterable[int]) -> None:
    """Ban tokens from vLLM's sampling, even if the user's `logit_bias` favours them; the rest of it stays.

    Image and video tokens are banned, since no pixels would belong to them. Without vLLM TRL suppresses them itself.

    Args:
        generation: TRL's `VLLMGeneration` in any mode.
        token_ids: the tokens.
    """
    given = generation.generation_kwargs
    own = {int(token): bias for token, bias in (given.get("logit_bias") or {}).items()}
    generation.generation_kwargs = {**given, "logit_bias": own | dict.fromkeys(token_ids, NEVER)}


def patch_vllm_images(
    generation: Any, image_token_id: int, clip_prompts: Callable[[], list[ClipPrompt] | None] = lambda: None
) -> None:
    """Make vLLM see the images and clips of a prompt as the trained policy does.

    - TRL sends prompts with each image expanded into its image tokens, the first of which vLLM expands again. Here each
      run of image tokens is sent as one token, and the prompt that vLLM read is compared with TRL's.
    - vLLM caches the vision tower's output per image; here the cache is emptied whenever new weights arrive.
    - TRL passes on images alone; clips are passed among them, and separated before vLLM gets its prompts.

    Args:
        generation: TRL's `VLLMGeneration` in `colocate` mode.
        image_token_id: the token that each part of an image has in a prompt.
        clip_prompts: the prompts of the next call if any has clips, in the order of TRL's.

    Errors: ValueError, from `generation.generate`, if vLLM read another prompt than the trainer's.
    Source: https://github.com/huggingface/trl/issues/6294 and https://github.com/huggingface/trl/issues/7198
    """
    generate, sync_weights = generation.generate, generation.sync_weights

    def generate_as_trained(prompts: list[list[int]], **others: Any) -> tuple[Any, ...]:
        sent = [collapse_runs(ids, image_token_id) for ids in prompts]
        if (with_clips := clip_prompts()) is not None:
            sent = [each.ids for each in with_clips]
            others["images"] = [each.media or None for each in with_clips]
        results = generate(prompts=sent, **others)
        check_prompts(prompts, results[0])
        return results

    def sync_and_empty_image_cache() -> None:
        sync_weights()
        generation.llm.llm_engine.reset_encoder_cache()

    sample = generation.llm.generate

    def sample_with_clips(rows: list[dict[str, Any]], **options: Any) -> Any:
        return sample([_sorted_media(row) for row in rows], **options)

    generation.llm.generate = sample_with_clips
    generation.generate, generation.sync_weights = generate_as_trained, sync_and_empty_image_cache


def _sorted_media(row: dict[str, Any]) -> dict[str, Any]:
    """TRL's prompt for vLLM, with its clips separated from its images."""
    given = row.get("multi_modal_data", {}).get("image", [])
    media = given if isinstance(given, list) else [given]
    if not any(isinstance(each, Clip) for each in media):
        return row
    return {**row, "multi_modal_data": vllm_media(media)}
