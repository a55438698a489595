"""TRL's colocated vLLM under our trainer answers the prompts that are trained on, with the weights of each step."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from trl import GRPOConfig
from trl.generation import vllm_generation

from rlassay.config.model import HubModel, Lora
from rlassay.credit import CREDITS
from rlassay.models.policy import build_policy, peft_config
from rlassay.signals.segments import vision_token_ids
from rlassay.training import CreditGRPOTrainer
from rlassay.training.rollouts import Rollout
from tests.engines.qwen import save_qwen
from tests.engines.vllm_process import needs_vllm, vllm_process
from tests.models.hubs import hub, row

pytestmark = [needs_vllm, pytest.mark.filterwarnings("ignore")]  # vLLM warns while it runs, and TRL of what it wraps

BETWEEN_ENGINES = 1e-4


class Checked(CreditGRPOTrainer):
    """Notes how far vLLM's log-probs are from those of the policy at that step, which samples no vision tokens."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.differences: list[float] = []
        super().__init__(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        model: Any = self.model
        both = {
            name: torch.cat([output[f"prompt_{kind}"], output[f"completion_{kind}"]], dim=1)
            for name, kind in (("input_ids", "ids"), ("attention_mask", "mask"))
        }
        about_images = {name: output[name] for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}
        with torch.no_grad():
            logits = model(**both, **about_images).logits[:, -output["completion_ids"].shape[1] - 1 : -1]
        logits[..., vision_token_ids(model.config)] = -torch.inf
        logps = logits.log_softmax(dim=-1).gather(2, output["completion_ids"][..., None])[..., 0]
        difference = (logps - output["sampling_per_token_logps"]) * output["completion_mask"]
        self.differences.append(difference.abs().max().item())
        return output


def prompts() -> Dataset:
    """Prompts of two lengths with images of two sizes."""
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (56, 28 * width, 3), dtype=np.uint8)) for width in (2, 3)]
    texts = ("Which digit is larger?", "larger?")
    turns = [[{"type": "image"}, {"type": "text", "text": text}] for text in texts]
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": turns[index % 2]}],
                "image": images[index % 2],
                "prompt_id": f"p{index}",
            }
            for index in range(4)
        ]
    )


def variety(completions: list[Any], **columns: Any) -> list[float]:
    """Number of different characters, in TRL's signature."""
    return [float(len(set(completion[0]["content"]))) for completion in completions]


def two_steps(folder: Path, *, seed: int = 11, **of_vllm: Any) -> GRPOConfig:
    """Arguments of two steps whose completions vLLM samples, with its options."""
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=2,
        learning_rate=1e-2,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=6,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=seed,
        use_vllm=True,
        **of_vllm,
    )


def train(section: HubModel, folder: Path) -> tuple[list[float], list[Rollout]]:
    """Two steps with credit by attention and perception: how far vLLM was from the policy in each, and the rollouts."""
    model, processor = build_policy(section, [row(image="image.png")])
    arguments = two_steps(folder, vllm_mode="colocate", vllm_max_model_length=128)
    trainer = Checked(
        model=model,
        reward_funcs=variety,
        args=arguments,
        train_dataset=prompts(),
        processing_class=processor,
        peft_config=peft_config(section),
        credit=[CREDITS["attention_weights"], CREDITS["perception_filter"]],
    )
    rollouts: list[Rollout] = []
    trainer.xp_listeners.append(rollouts.append)
    trainer.train()
    assert all(logged["grad_norm"] > 0 for logged in trainer.state.log_history[:2])
    return trainer.differences, rollouts


@pytest.mark.parametrize("lora", [None, Lora(r=4)], ids=["all weights", "adapters"])
def test_vllm_samples_from_the_policy_of_each_step_for_the_prompts_that_are_trained_on(
    lora: Lora | None, tmp_path: Path
):
    section = hub(save_qwen(tmp_path / "hub"), lora)
    # TRL names no type, and vLLM takes half precision where a model is in single.
    with vllm_process() as patch:
        patch.setattr(vllm_generation, "LLM", partial(vllm_generation.LLM, dtype="float32"))
        differences, rollouts = train(section, tmp_path)

    assert len(differences) == 2
    assert max(differences) < BETWEEN_ENGINES
    for record in (each for rollout in rollouts for each in rollout.token_records):
        assert record.vision_grid in ([2, 2], [2, 3])
        assert len(record.vision_attention or ()) == record.vision_grid[0] * record.vision_grid[1]
        assert len(record.dominance or ()) == len(record.perception or ()) == len(record.tokens)
        # Of six tokens or fewer the filter keeps 20 %, rounded up, and attention weights have a mean of 1.
        kept = [weight for weight in record.weight if weight > 0]
        assert len(kept) == math.ceil(0.2 * len(record.weight))
    assert (
        len({weight for each in rollouts[0].token_records for weight in each.weight})
        > len(rollouts[0].token_records) / 2
    )
