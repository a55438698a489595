"""Training steps and generation of encoder-decoders, ours against plain PyTorch and plain `generate`.

`Seq2SeqGRPOTrainer` and a loop of twenty lines train the model of the study `headlines` on 128 completions of at most
32 tokens with the same rewards and the loss of GRPO, and ours again measuring the attention on the document, as a
study does. They take turns step by step in one process, from the same seed, and share whatever else the machine does.
Then our sampling and `model.generate` take turns on the same documents.
The ratios are printed last; the aims are at most 1.15 for a step, and at least 0.95 for tokens per second.
Run from the project's root: python -m benchmarks.seq2seq_step_time [--steps N]
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from transformers import GenerationConfig, PrinterCallback

from benchmarks.turns import WARM_UP, compare, race
from rlassay.config import load_study
from rlassay.config.model import TinySeq2Seq
from rlassay.config.settings import Diagnostics
from rlassay.data import load_rows
from rlassay.models.policy import build_policy
from rlassay.models.seq2seq import document_ids, generate
from rlassay.records import Completion, PromptRow
from rlassay.rewards import REWARDS
from rlassay.training import Seq2SeqGRPOTrainer, trl_reward
from rlassay.training.rl import grpo_arguments, signal_plan

LENGTH, GROUP, PROMPTS = 32, 8, 16


class PlainLoop:
    """GRPO written out: generate, reward, forward, backward, AdamW."""

    def __init__(self, model: Any, tokenizer: Any, rows: list[PromptRow], steps: int) -> None:
        self.model, self.tokenizer, self.rows, self.steps = model, tokenizer, rows, steps
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-12)
        self.callbacks: list[Any] = []

    def add_callback(self, callback: Any) -> None:
        """Called before every step and at the end."""
        self.callbacks.append(callback)

    def train(self) -> None:
        """All steps."""
        for step in range(self.steps):
            for callback in self.callbacks:
                callback.on_step_begin(None, SimpleNamespace(global_step=step), None)
            self._step([self.rows[(step * PROMPTS + index) % len(self.rows)] for index in range(PROMPTS)])
        for callback in self.callbacks:
            callback.on_train_end(None, None, None)

    def _step(self, rows: list[PromptRow]) -> None:
        repeated = [row for row in rows for _ in range(GROUP)]
        inputs = encoded(self.model, self.tokenizer, repeated)
        ids = plain_generate(self.model, inputs)
        end = self.tokenizer.eos_token_id
        mask = ((ids == end).cumsum(dim=1) - (ids == end).long() == 0).float()
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        groups = [
            [
                Completion(text=texts[first + index], token_count=LENGTH, finished=True, row=row)
                for index in range(GROUP)
            ]
            for first, row in zip(range(0, len(texts), GROUP), rows, strict=True)
        ]
        rewards = torch.tensor([REWARDS["rouge_average"](group) for group in groups])
        advantages = (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(dim=1, keepdim=True) + 1e-4)
        start = torch.full((len(ids), 1), self.model.config.decoder_start_token_id)
        logits = self.model(**inputs, decoder_input_ids=torch.cat([start, ids[:, :-1]], dim=1), use_cache=False).logits
        logps = logits.log_softmax(dim=2).gather(2, ids[..., None])[..., 0]
        loss = -((logps - logps.detach()).exp() * advantages.view(-1, 1) * mask).sum(dim=1) / mask.sum(dim=1)
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def encoded(model: Any, tokenizer: Any, rows: list[PromptRow]) -> Any:
    """The encoder's inputs."""
    ids = document_ids(model, tokenizer, [row.question for row in rows])
    return tokenizer.pad({"input_ids": ids}, return_tensors="pt")


def plain_generate(model: Any, inputs: Any) -> torch.Tensor:
    """Samples of the model by its own `generate`, without the start token."""
    with torch.no_grad():
        return model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=LENGTH)[:, 1:]


def our_trainer(
    rows: list[PromptRow], model: Any, tokenizer: Any, steps: int, folder: Path, *, attention: bool = False
) -> Any:
    """Our trainer of the study's first arm, on the same model."""
    study = load_study("headlines")
    recipe = study.arms["grpo"].recipe
    changes = {"max_steps": steps, "save_steps": steps + 1, "learning_rate": 1e-12, "max_completion_length": LENGTH}
    recipe = recipe.model_copy(update={"rl": recipe.rl.model_copy(update=changes)})
    arguments = grpo_arguments(recipe, 1, folder, on_cpu=True)
    arguments.reward_weights = [1.0]
    import datasets

    columns = [{"prompt": row.question, "answer": row.answer, "prompt_id": row.prompt_id} for row in rows]
    trainer = Seq2SeqGRPOTrainer(
        model=model,
        reward_funcs=[trl_reward("rouge_average")],
        args=arguments,
        train_dataset=datasets.Dataset.from_list(columns),
        processing_class=tokenizer,
        signals=signal_plan(study, recipe, Diagnostics(compute_attention_metrics=attention)),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def generation_ratio(model: Any, tokenizer: Any, rows: list[PromptRow], repetitions: int) -> float:
    """Tokens per second of our sampling over those of plain `generate`, both from the same seeds."""
    config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=LENGTH, pad_token_id=0, eos_token_id=1)
    inputs = encoded(model, tokenizer, [row for row in rows[:PROMPTS] for _ in range(GROUP)])
    ratios: list[float] = []
    for repetition in range(repetitions):
        rates: list[float] = []
        for ours in (True, False) if repetition % 2 else (False, True):
            torch.manual_seed(repetition)
            began = time.perf_counter()
            with torch.no_grad():
                if ours:
                    made = generate(model, inputs["input_ids"], inputs["attention_mask"], config)
                else:
                    made = plain_generate(model, inputs)
            rates.append(made.numel() / (time.perf_counter() - began))
        ratios.append(rates[0] / rates[1] if repetition % 2 else rates[1] / rates[0])
    return median(ratios)


def main() -> None:
    """Print the median step of each, and the two ratios last."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=10, help="steps of each that count [%(default)s]")
    steps = parser.parse_args().steps
    section = load_study("headlines").data.model_copy(update={"splits": {"train": 200}, "packages": ("numpy",)})
    with tempfile.TemporaryDirectory() as folder:
        rows = list(load_rows(section, Path(folder) / "data"))
        policies = [build_policy(TinySeq2Seq(kind="tiny_seq2seq", vocab_size=600), rows) for _ in range(3)]
        plain = PlainLoop(*policies[0], rows, steps + WARM_UP)
        count, checkpoints = steps + WARM_UP, Path(folder) / "checkpoints"
        ours = our_trainer(rows, *policies[1], count, checkpoints)
        measuring = our_trainer(rows, *policies[2], count, checkpoints, attention=True)
        plain_seconds, our_seconds, measuring_seconds = race([plain, ours, measuring])
        ratio = generation_ratio(*policies[0], rows, steps)
    print(f"plain loop {median(plain_seconds):.3f} s per step, ours {median(our_seconds):.3f} s ({steps} steps each)")
    print(f"generation, tokens per second, ours over plain generate: {ratio:.3f} (median of {steps} pairs)")
    compare("the attention measured over ours without", measuring_seconds, our_seconds)
    compare("ours over a plain loop", our_seconds, plain_seconds)


if __name__ == "__main__":
    main()
