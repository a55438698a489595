"""Time and memory of a step on this machine: models of real shapes with random weights, without the network.

For each shape, stock TRL and then our trainer with token credit train on the same prompts, full weights, AdamW. Printed
are the step time of both, tokens per second and GPU, the shares of sampling, rewards, signals and update, the peak of
memory, and what attention mass adds to a scoring pass of 2 to 8 thousand tokens. A shape that does not fit is reported
and left out. `--toy` shrinks everything, so that it runs anywhere in a minute. The vision shapes need torchvision.
Run from the project's root: python -m benchmarks.gpu [--shapes text_1.5b vl_3b vl_7b] [--steps N] [--toy]
"""

import argparse
import gc
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from datasets import Dataset
from PIL import Image
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from rlassay.credit import CREDITS
from rlassay.signals import SEGMENTS, ModelInputs, ScoringConfig, teacher_forced
from rlassay.training import CreditGRPOTrainer
from rlassay.training.process import peak_memory_mb
from tests.engines.qwen import CHAT_TEMPLATE, SPECIAL, qwen_tokenizer

ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
TEXT = {
    "text_1.5b": (1536, 8960, 28, 12, 2, 151_936, True),
    "vl_3b": (2048, 11_008, 36, 16, 2, 151_936, True),
    "vl_7b": (3584, 18_944, 28, 28, 4, 152_064, False),
}
"""Shape -> width, width of the MLP, layers, heads, key-value heads, vocabulary, tied embeddings, of Qwen's configs."""
VISION: dict[str, Any] = {
    **{"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "window_size": 112},
    "fullatt_block_indexes": [7, 15, 23, 31],
}
TOY_TEXT = (64, 96, 3, 2, 1, 400)
TOY_VISION: dict[str, Any] = {
    **{"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "window_size": 56},
    "fullatt_block_indexes": [1],
}
WARM_UP = 1
"""Steps of each trainer that do not count."""


def main() -> None:
    """Print the figures of each shape."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed, where it is installed, prints a warning otherwise
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--shapes", nargs="+", default=list(TEXT), choices=list(TEXT), help="models [all]")
    parser.add_argument("--steps", type=int, default=3, help="steps of each trainer that count [%(default)s]")
    parser.add_argument("--toy", action="store_true", help="models and completions of a few tokens, for a test")
    args = parser.parse_args()
    for shape in args.shapes:
        try:
            report(shape, args.steps, toy=args.toy)
        except torch.OutOfMemoryError:
            print(f"{shape}: does not fit the memory of this GPU")
        free()


def report(shape: str, steps: int, *, toy: bool) -> None:
    """Measure one shape and print its figures."""
    size = {"completions": 4, "tokens": 6, "pixels": 56} if toy else {"completions": 16, "tokens": 512, "pixels": 448}
    stock = trained(GRPOTrainer, shape, size, steps, toy=toy)
    free()
    ours = trained(CreditGRPOTrainer, shape, size, steps, toy=toy)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    whole = size["completions"] * size["tokens"]
    print(f"{shape}{' (toy)' if toy else ''}: {ours['parameters'] / 1e9:.3g}B parameters on {device}")
    print(f"  step: TRL {stock['step']:.3f} s, ours with credit {ours['step']:.3f} s, {whole} tokens each")
    print(f"  step time, ours over TRL: {ours['step'] / stock['step']:.3f} (medians of {steps} steps)")
    print(f"  tokens per second and GPU: TRL {whole / stock['step']:.0f}, ours {whole / ours['step']:.0f}")
    parts = {name: ours[f"time/{name}"] / ours["step"] for name in ("generation", "reward", "signals")}
    parts["update"] = 1 - sum(parts.values())
    print("  shares of a step: " + ", ".join(f"{name} {share:.0%}" for name, share in parts.items()))
    print(f"  peak memory: TRL {stock['memory']:.0f} MiB, ours {ours['memory']:.0f} MiB")
    free()
    lengths = (32, 64) if toy else (2048, 4096, 8192)
    costs = ", ".join(f"{cost:.3f} at {length}" for length, cost in attention_costs(shape, lengths, toy=toy))
    print(f"  attention mass over a plain scoring pass: {costs} tokens")


class Clock(TrainerCallback):
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(now() - self.began)


def trained(trainer_class: Any, shape: str, size: dict[str, int], steps: int, *, toy: bool) -> dict[str, float]:
    """Seconds per step and per part of it, medians, and the peak of memory in MiB, of one trainer."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    model, processor = built(shape, toy=toy)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_class(
            model=model,
            reward_funcs=even_letters,
            args=arguments(Path(folder), size, steps, processor, toy=toy),
            train_dataset=prompts(shape, size["pixels"]),
            processing_class=processor,
            callbacks=[clock],
            **({"credit": credit(shape)} if trainer_class is CreditGRPOTrainer else {}),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    logged = [line for line in trainer.state.log_history if "loss" in line][WARM_UP:]
    parts = {name: median(line[name] for line in logged) for name in logged[0] if name.startswith("time/")}
    parameters = sum(each.numel() for each in model.parameters())
    return {"step": median(clock.seconds[WARM_UP:]), "memory": peak_memory_mb(), "parameters": parameters, **parts}


def arguments(folder: Path, size: dict[str, int], steps: int, processor: Any, *, toy: bool) -> GRPOConfig:
    """One generation batch per step, four completions at a time, each of the whole length."""
    tokenizer = getattr(processor, "tokenizer", processor)
    # A sampled image token would have no image.
    never = tokenizer.convert_tokens_to_ids(SPECIAL)
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=steps + WARM_UP,
        learning_rate=1e-6,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=size["completions"] // 4,
        steps_per_generation=size["completions"] // 4,
        num_generations=4,
        max_completion_length=size["tokens"],
        generation_kwargs={"suppress_tokens": never, "min_new_tokens": size["tokens"]},
        gradient_checkpointing=not toy,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


def credit(shape: str) -> list[Any]:
    """Parts that read all signals that the model has."""
    parts = [partial(CREDITS["entropy_filter"], fraction=0.3)]
    if shape.startswith("vl"):
        parts += [partial(CREDITS["perception_filter"], fraction=0.3), CREDITS["attention_weights"]]
    return parts


def even_letters(completions: list[Any], **columns: Any) -> list[float]:
    """A reward that varies between random completions."""
    return [float(sum(map(ord, str(completion))) % 7) for completion in completions]


def prompts(shape: str, pixels: int) -> Dataset:
    """Questions of a few hundred tokens, with an image for the vision shapes."""
    rows: list[dict[str, Any]] = []
    for number in range(8):
        text = f"{number}: Which digit is larger? Think about it first, then answer with one letter. " * 4
        row: dict[str, Any] = {"prompt": [{"role": "user", "content": text}]}
        if shape.startswith("vl"):
            row["images"] = [Image.linear_gradient("L").rotate(90 * number).resize((pixels, pixels)).convert("RGB")]
        rows.append(row)
    return Dataset.from_list(rows)


def built(shape: str, *, toy: bool) -> tuple[Any, Any]:
    """The model with random weights, and its tokenizer or processor."""
    library: Any = transformers
    tokenizer = qwen_tokenizer()
    text = text_config(shape, tokenizer, toy=toy)
    on_gpu = torch.cuda.is_available()
    kind = torch.bfloat16 if on_gpu else torch.float32
    default = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        with torch.device("cuda" if on_gpu else "cpu"):
            if not shape.startswith("vl"):
                model = library.Qwen2ForCausalLM(library.Qwen2Config(**text))
                return _ending(model, tokenizer), tokenizer
            width = text["hidden_size"]
            ids: Any = tokenizer.convert_tokens_to_ids(SPECIAL[3:])
            names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
            vision = {**(TOY_VISION if toy else VISION), "out_hidden_size": width}
            tokens: dict[str, Any] = dict(zip(names, ids, strict=True))
            tied = text["tie_word_embeddings"]
            config = library.Qwen2_5_VLConfig(
                text_config=text, vision_config=vision, tie_word_embeddings=tied, **tokens
            )
            model = library.Qwen2_5_VLForConditionalGeneration(config)
            return _ending(model, tokenizer), vision_processor(tokenizer)
    finally:
        torch.set_default_dtype(default)


def text_config(shape: str, tokenizer: Any, *, toy: bool) -> dict[str, Any]:
    """The language model's part of the config."""
    *sizes, tied = TEXT[shape]
    width, inner, layers, heads, shared, vocabulary = TOY_TEXT if toy else sizes
    rope = {**ROPE, "mrope_section": [4, 6, 6]} if toy else dict(ROPE)
    if not shape.startswith("vl"):
        rope.pop("mrope_section")
    return {
        **{"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "vocab_size": vocabulary},
        **{"num_attention_heads": heads, "num_key_value_heads": shared, "tie_word_embeddings": tied},
        **{"max_position_embeddings": 32_768, "rope_parameters": rope, "bos_token_id": None},
        **{"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id},
    }


def _ending(model: Any, tokenizer: Any) -> Any:
    for about in (model.config, model.generation_config):
        about.pad_token_id, about.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    return model


def vision_processor(tokenizer: Any) -> Any:
    """Qwen2.5-VL's processor around the tokenizer; it needs torchvision."""
    library: Any = transformers
    return library.Qwen2_5_VLProcessor(
        image_processor=library.Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=library.Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def attention_costs(shape: str, lengths: tuple[int, ...], *, toy: bool) -> list[tuple[int, float]]:
    """Sequence length -> time of a scoring pass that records attention mass, over one that does not."""
    model, _ = built(shape, toy=toy)
    vocabulary = model.config.get_text_config().vocab_size
    costs: list[tuple[int, float]] = []
    for length in lengths:
        ids = torch.randint(10, vocabulary, (1, length), device=model.device)
        inputs = ModelInputs(
            by_token={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            by_image=({},),
            completion_length=length // 4,
            system_lengths=(0,),
            prompts=(0,),
        )
        segments = torch.randint(0, len(SEGMENTS), (1, length), device=model.device)
        ratios: list[float] = []
        for _ in range(4):
            plain = seconds(lambda: teacher_forced(model, inputs, ScoringConfig()))  # noqa: B023  # called immediately
            mass = seconds(lambda: teacher_forced(model, inputs, ScoringConfig(), segment_ids=segments))  # noqa: B023
            ratios.append(mass / plain)
        costs.append((length, median(ratios[1:])))
    return costs


def seconds(work: Any) -> float:
    """Seconds of one call."""
    began = now()
    work()
    return now() - began


def now() -> float:
    """Seconds, once the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def free() -> None:
    """Give back the memory of a model that nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
