"""A program that gives credit to one generation batch and trains on it, on one process or several.

`torchrun --nproc_per_node 2 -m tests.contract.one_batch <folder> <completions per process> [<strategy> [<tokens>]]
[offload] [lora]` writes `<rank>.pt`: the process's own token advantages, the metrics that it would log, its KL, and the
weights after two optimiser steps on a generation batch of the same prompts, in micro-batches of at most so many tokens
if these are given. All processes together take the same completions, by accumulation where they are few. `lora` trains
adapters in place of the weights, with a KL to the model without them.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig
from PIL import Image
from torch.distributed.fsdp import CPUOffloadPolicy
from trl import GRPOConfig

from rlassay.advantages import in_groups
from rlassay.credit import CREDITS
from rlassay.records import Media, PromptRow
from rlassay.signals import Masking
from rlassay.signals.measuring import SignalPlan
from rlassay.training import CreditGRPOTrainer
from rlassay.training.scale.strategy import StrategyCheck, allow_on_cpu, strategy_arguments, whole_weights
from tests.training.tiny_vlm import dataset_of, varied_vlm

NUM_GENERATIONS = 4
PER_DEVICE = 6
"""Completions of a micro-batch."""
VALUES = (1.0, 0.0, 0.5, 0.0, 0.0, 0.0, 2.0, 1.0, 0.0, 3.0, 1.0, 0.0)
"""Reward of each completion of the whole batch."""
CREDIT = [
    partial(CREDITS["attention_weights"], sigma=1.0, negative_scale=0.5),
    partial(CREDITS["entropy_filter"], fraction=0.3),
    partial(CREDITS["perception_filter"], fraction=0.3),
    partial(CREDITS["trajectory_scaling"], min_scale=0.8),
    CREDITS["shuffled_weights"],
]

ADAPTERS = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
"""Adapters that do not begin at 0, so that both of their matrices get gradients and the reference is another model."""


def centred(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    """A toy estimator: reward minus the mean of its group, for which a process needs the whole batch."""
    grouped = in_groups(rewards, num_generations)
    return (grouped - grouped.mean(dim=1, keepdim=True)).view_as(rewards)


def main(
    folder: Path,
    per_process: int,
    strategy: str = "ddp",
    tokens: int | None = None,
    *,
    cpu_offload: bool = False,
    lora: bool = False,
) -> None:
    """Score, credit and train on this process's part of one batch."""
    first = PartialState(cpu=True).process_index * per_process
    values = list(VALUES[first : first + per_process])
    trainer = _trainer(
        folder, per_process, values, strategy, cpu_offload=cpu_offload, lora=lora, max_tokens_per_micro_batch=tokens
    )
    before = {name: each.detach().clone() for name, each in trainer._xp_model().named_parameters()}
    score = trainer._generate_and_score_completions
    result: dict[str, Any] = {}

    def scored(inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = score(inputs)
        logged = {name: each[-1] for name, each in trainer._metrics["train"].items() if not name.startswith("time/")}
        result.update(advantages=output["advantages"], metrics=logged)
        return output

    trainer._generate_and_score_completions = scored  # in training, since a policy is divided only then
    trainer.train()
    result["kl"] = [line["kl"] for line in trainer.state.log_history if "kl" in line]
    with whole_weights(trainer):
        result["weights"] = {name: each.detach().clone() for name, each in trainer._xp_model().named_parameters()}
    result["moved"] = {name: (each - before[name]).abs().max().item() for name, each in result["weights"].items()}
    torch.save(result, folder / f"{PartialState().process_index}.pt")


def _trainer(
    folder: Path, per_process: int, values: list[float], strategy: str, *, cpu_offload: bool, lora: bool, **ours: Any
) -> CreditGRPOTrainer:
    """A trainer whose reward gives this process's completions the `values`."""

    def earned(completions: list[Any], **columns: Any) -> list[float]:
        return values[: len(completions)]

    model, processor = varied_vlm()
    rows = [_row(folder, index) for index in range(3)]
    shared = strategy_arguments(strategy, model, cpu_offload=cpu_offload)
    arguments = _arguments(folder, per_process, {**shared, "beta": 0.1 if lora else 0.0})
    allow_on_cpu(arguments)
    torch.manual_seed(0)  # for the adapters, which begin alike in all processes
    trainer = CreditGRPOTrainer(
        model=model,
        reward_funcs=earned,
        args=arguments,
        train_dataset=dataset_of(rows, processor, folder),
        processing_class=processor,
        peft_config=ADAPTERS if lora else None,
        advantage=centred,
        credit=CREDIT,
        credit_denominator="selected",
        signals=SignalPlan(attention=True, masking=Masking(block=4)),
        **ours,
    )
    if strategy == "fsdp2" and cpu_offload:  # pinned memory is for a GPU
        plugin: Any = trainer.accelerator.state.fsdp_plugin
        plugin.cpu_offload = CPUOffloadPolicy(pin_memory=False)
    trainer.add_callback(StrategyCheck(strategy, trainer))
    return trainer


def _arguments(folder: Path, per_process: int, shared: dict[str, Any]) -> GRPOConfig:
    """Two optimiser steps on one batch of `per_process` completions in each process."""
    return GRPOConfig(
        **shared,
        output_dir=str(folder / "checkpoints"),
        per_device_train_batch_size=PER_DEVICE,
        gradient_accumulation_steps=per_process // PER_DEVICE,
        steps_per_generation=per_process // PER_DEVICE,
        num_iterations=2,
        max_steps=2,
        shuffle_dataset=False,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=1e9,
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        num_generations=NUM_GENERATIONS,
        max_completion_length=7,
        top_k=1,  # greedy, so that the completions do not depend on a process's own random numbers
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        report_to=[],
    )


def _row(folder: Path, index: int) -> PromptRow:
    """A prompt with an image, which the first process writes."""
    state = PartialState()
    if state.is_main_process:
        Image.linear_gradient("L").rotate(90 * index).resize((16, 16)).save(folder / f"{index}.png")
    state.wait_for_everyone()
    question = "Which? " * (1 + index)
    media = (Media(path=f"{index}.png"),)
    return PromptRow(prompt_id=f"p{index}", question=question, answer="A", choices=("3", "7"), media=media)


if __name__ == "__main__":
    offload, adapters = "offload" in sys.argv, "lora" in sys.argv
    given = [each for each in sys.argv[1:] if each not in ("offload", "lora")]
    main(Path(given[0]), int(given[1]), *given[2:3], *map(int, given[3:]), cpu_offload=offload, lora=adapters)
