"""A program that fine-tunes an encoder-decoder and trains others by GRPO, on one process or several.

`torchrun --nproc_per_node 2 -m tests.training.seq2seq_steps <folder> <samples per process>` writes `<rank>.pt`: for
each training the weights after it and what it logged.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from rlassay.config.training import SFTConfig
from rlassay.models.policy import ChatFormat
from rlassay.models.seq2seq import DOCUMENT_TEMPLATE, disable_dropout
from rlassay.records import PromptRow
from rlassay.signals.measuring import SignalPlan
from rlassay.training import Seq2SeqGRPOTrainer
from rlassay.training.sft import seq2seq_trainer, sft_arguments
from tests.training.one_step import DESCENT
from tests.training.tiny_lm import save_as_start
from tests.training.tiny_seq2seq import make_trainer, model, tokenizer

SIZE = 12
VALUES = (1.0, 0.0, 0.5, 0.0, 0.0, 0.0, 2.0, 1.0, 0.0, 3.0, 1.0, 0.0)
"""Reward of each completion of the whole batch, groups of four."""
COMPLETIONS = tuple([4 + (3 * index + place) % 10 for place in range(index % 6)] + [1] for index in range(SIZE))
"""Of different lengths; each process pads its own to another length."""
LOSSES = ("dapo", "grpo", "dr_grpo")


def main(folder: Path, per_process: int) -> dict[str, Any]:
    """Train on this process's part of each batch."""
    rank = PartialState(cpu=True).process_index
    own = slice(rank * per_process, (rank + 1) * per_process)
    results = {"sft": fine_tuned(folder / "sft", per_process)}
    for loss_type in LOSSES:
        results[loss_type] = trained(folder / loss_type, own, loss_type)
    return results


def fine_tuned(folder: Path, per_process: int, micro_batches: int = 1) -> dict[str, Any]:
    """Three steps on documents and summaries of different lengths."""
    processor = tokenizer()
    processor.chat_template = DOCUMENT_TEMPLATE
    rows = [
        PromptRow(
            prompt_id=str(index),
            question=" ".join(["count", *str(index) * (1 + index % 3)]),
            answer="1",
            demonstration=" ".join(str(index) * (1 + index % 5)),
        )
        for index in range(SIZE)
    ]
    sizes = {"per_device_train_batch_size": per_process, "gradient_accumulation_steps": micro_batches}
    config = SFTConfig(max_steps=3, learning_rate=1e-2, **sizes)
    chats = ChatFormat(processor=processor, with_format_instruction=False)
    policy = model("t5")
    disable_dropout(policy)  # its random numbers are those of a process
    trainer: Any = seq2seq_trainer(policy, rows, chats, sft_arguments(config, 0, folder, on_cpu=True), None)
    trainer.train()
    return _results(trainer, ("loss", "grad_norm"))


def trained(folder: Path, own: slice, loss_type: str) -> dict[str, Any]:
    """A step of GRPO with KL and shuffled credit on completions that do not depend on the process."""

    def earned(completions: list[Any], **columns: Any) -> list[float]:
        return list(VALUES[own])

    policy = model("bart_forced")
    with PartialState().main_process_first():  # the others find it whole
        save_as_start(policy, folder)
    trainer = make_trainer(
        Seq2SeqGRPOTrainer,
        folder,
        model=policy,
        reward_funcs=[earned],
        credit=["entropy_filter", "shuffled_weights"],
        signals=SignalPlan(attention=True),
        loss_type=loss_type,
        beta=0.05,
        per_device_train_batch_size=own.stop - own.start,
        **DESCENT,
    )
    trainer._generate_single_turn = lambda *_, **__: ([list(each) for each in COMPLETIONS[own]], None)
    trainer.train()
    metrics = ("loss", "reward", "entropy", "completions/mean_length", "combined_token_fraction")
    return _results(trainer, (*metrics, "attention/late/attended_tokens", "attention/text_tokens"))


def _results(trainer: Any, names: tuple[str, ...]) -> dict[str, Any]:
    weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    logged = [{name: line[name] for name in names} for line in trainer.state.log_history if "loss" in line]
    return {"weights": {name: value.clone() for name, value in weights.items()}, "logged": logged}


if __name__ == "__main__":
    torch.save(main(Path(sys.argv[1]), int(sys.argv[2])), Path(sys.argv[1]) / f"{PartialState().process_index}.pt")
