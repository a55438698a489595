"""Completions of the tiny Qwen2.5-VL that vLLM sampled: sampled now, or stored beside this file with its answers.

`.venv-vllm/bin/python -m tests.engines.completions` stores them again.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STORED = Path(__file__).with_name("completions.json")
NUM_TOKENS = (9, 5, 7)


@dataclass(frozen=True, kw_only=True)
class Completions:
    """What vLLM read, wrote, and thought of it."""

    prompt_ids: list[list[int]]
    """As vLLM read them, image tokens included."""
    completion_ids: list[list[int]]
    """Its completions."""
    logps: list[list[float]]
    """Log-probability of each sampled token, nats."""


def conversations() -> list[list[dict[str, Any]]]:
    """Two prompts that show an image, and one that does not; each of another length."""
    texts = ("Which digit is larger?", "larger?", "Which digit is larger?\n(A)3 (B)7")
    pictures: list[list[dict[str, Any]]] = [[{"type": "image"}], [{"type": "image"}], []]
    return [
        [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]
        for text, shown in zip(texts, pictures, strict=True)
    ]


def pictures() -> list[list[Image.Image]]:
    """The images of each prompt, in sizes that a processor leaves alone: 2 x 2 and 3 x 2 image tokens."""
    random = np.random.default_rng(0)
    noise = [
        random.integers(0, 256, (28 * rows, 28 * columns, 3), dtype=np.uint8) for rows, columns in ((2, 2), (3, 2))
    ]
    return [*([Image.fromarray(each)] for each in noise), []]


def stored() -> Completions:
    """What vLLM sampled when the file beside this one was written."""
    return Completions(**json.loads(STORED.read_text()))


def sample(folder: Path) -> Completions:
    """Let vLLM answer the prompts with the model in `folder`."""
    from vllm import LLM, SamplingParams

    from tests.engines.qwen import qwen_tokenizer

    tokenizer = qwen_tokenizer()
    engine = LLM(model=str(folder), dtype="float32", enforce_eager=True, max_model_len=128, max_num_seqs=4)
    texts = [
        tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in conversations()
    ]
    requests: Any = [
        {"prompt": text, **({"multi_modal_data": {"image": images}} if images else {})}
        for text, images in zip(texts, pictures(), strict=True)
    ]
    images_never = {int(tokenizer.convert_tokens_to_ids("<|image_pad|>")): -100.0}
    how = [
        SamplingParams(max_tokens=count, ignore_eos=True, logprobs=0, seed=count, logit_bias=images_never)
        for count in NUM_TOKENS
    ]
    outputs = engine.generate(requests, how, use_tqdm=False)
    answers = [output.outputs[0] for output in outputs]
    return Completions(
        prompt_ids=[list(output.prompt_token_ids or ()) for output in outputs],
        completion_ids=[list(answer.token_ids) for answer in answers],
        logps=[[each.logprob for token in answer.logprobs or () for each in token.values()] for answer in answers],
    )


if __name__ == "__main__":
    import tempfile

    from tests.engines.qwen import save_qwen
    from tests.engines.vllm_process import set_up

    set_up()
    with tempfile.TemporaryDirectory() as where:
        STORED.write_text(json.dumps(asdict(sample(save_qwen(Path(where)))), indent=1) + "\n")
