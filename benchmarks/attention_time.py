"""Cost of attention mass: a scoring pass that records it, a plain one, and one with eager attention matrices.

A randomly initialised Llama of 8 layers scores completions of 256 tokens after prompts of 1,792. The three ways take
turns for the time. For peak memory, model included, each way runs in three processes of its own, at this length and at
half of it, which shows quadratic growth. The ratios to the plain pass come last; the targets are at most 1.15 in time
and 1.05 in memory.
Run from the project's root: python -m benchmarks.attention_time [--device cuda] [--width W] [--repeats N]
"""

import argparse
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlassay.signals import SEGMENTS, ModelInputs, ScoringConfig, teacher_forced
from rlassay.signals.formulas import entropy, token_logps

COMPLETION = 256
LENGTH = 2048
LAYERS = 8
PROCESSES = 3
WAYS = ("plain", "mass", "eager")


def main() -> None:
    """Print seconds and mebibytes of each way, and the ratios last."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda [%(default)s]")
    parser.add_argument("--width", type=int, default=512, help="width of the model, 64 per head [%(default)s]")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each way [%(default)s]")
    arguments = parser.parse_args()
    seconds = measured_seconds(arguments.device, arguments.width, arguments.repeats)
    memory = {
        (way, length): in_a_process(way, arguments.device, arguments.width, length)
        for way in WAYS
        for length in (LENGTH // 2, LENGTH)
    }
    for way in WAYS:
        half, full = (f"{memory[way, length]:.0f} MiB at {length}" for length in (LENGTH // 2, LENGTH))
        print(f"{way}: {statistics.median(seconds[way]):.3f} s at {LENGTH} tokens, peak {half} and {full}")
    for way in WAYS[:0:-1]:
        pairs = zip(seconds[way], seconds["plain"], strict=True)
        ratio = statistics.median(mine / plain for mine, plain in pairs)
        peak = memory[way, LENGTH] / memory["plain", LENGTH]
        print(f"{way} over plain: time {ratio:.3f} (median of {arguments.repeats} pairs), peak memory {peak:.3f}")


def measured_seconds(device: str, width: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, turn by turn, after one warm-up turn."""
    model, inputs, segment_ids = built(device, width, LENGTH)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats + 1):
        for way in WAYS:
            run = prepared(way, model, inputs, segment_ids)
            began = now(device)
            run()
            seconds[way].append(now(device) - began)
    return {way: each[1:] for way, each in seconds.items()}


def prepared(way: str, model: Any, inputs: ModelInputs, segment_ids: torch.Tensor) -> Callable[[], Any]:
    """The scoring of all completions in one of the ways."""
    model.set_attn_implementation("eager" if way == "eager" else "sdpa")
    if way == "eager":
        return lambda: eager(model, inputs, segment_ids)
    ids = segment_ids if way == "mass" else None
    return lambda: teacher_forced(model, inputs, ScoringConfig(), segment_ids=ids)


@torch.no_grad()
def eager(model: Any, inputs: ModelInputs, segment_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Log-probs, entropy and the same mass from attention matrices that the model returns."""
    batch = inputs.batch(range(len(inputs)), model.device)
    out = model(**batch, output_attentions=True, use_cache=False, logits_to_keep=COMPLETION + 1)
    log_probs = out.logits[:, :-1].float().log_softmax(dim=2)
    rows = slice(-COMPLETION - 1, -1)
    indicator = torch.nn.functional.one_hot(segment_ids, len(SEGMENTS)).float()
    mass = [matrices[:, :, rows].float().mean(dim=1) @ indicator for matrices in out.attentions]
    logps = token_logps(log_probs, batch["input_ids"][:, -COMPLETION:])
    return logps, entropy(log_probs), torch.stack(mass)


def built(device: str, width: int, length: int) -> tuple[Any, ModelInputs, torch.Tensor]:
    """The model, a completion of random tokens after a prompt without padding, and random segments."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        max_position_embeddings=length,
    )
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    model: Any = LlamaForCausalLM(config)
    model = model.to(device=device, dtype=kind)
    ids = torch.randint(3, 32_000, (1, length), device=device)
    inputs = ModelInputs(
        by_token={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        by_image=({},),
        completion_length=COMPLETION,
        system_lengths=(0,),
        prompts=(0,),
    )
    return model, inputs, torch.randint(0, len(SEGMENTS), (1, length), device=device)


def in_a_process(way: str, device: str, width: int, length: int) -> float:
    """Peak of memory of one way in a process of its own, MiB, median of several."""
    peaks = []
    for _ in range(PROCESSES):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks.append(pool.apply(peak_memory, (way, device, width, length)))
    return statistics.median(peaks)


def peak_memory(way: str, device: str, width: int, length: int) -> float:
    """Peak of memory of this process after one scoring, MiB: on a GPU of tensors, else of everything resident."""
    run = prepared(way, *built(device, width, length))
    run()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # Not from getrusage: a new process inherits the peak of its parent there.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 2**10


def now(device: str) -> float:
    """Seconds: after synchronising a GPU; on a CPU of this process, so that other jobs count little."""
    if device != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
