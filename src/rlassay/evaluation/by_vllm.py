"""The engine `vllm`: completions by vLLM in the job's own process."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, cast

from transformers import ProcessorMixin

from rlassay.config.engine import VLLMEngine
from rlassay.config.model import HubModel, ModelConfig
from rlassay.evaluation.by_transformers import processor_inputs
from rlassay.evaluation.decoding import Decoded, Decoding
from rlassay.images import Clip
from rlassay.models.hub import Model, Processor
from rlassay.models.policy import end_token_ids, tokenizer_of
from rlassay.models.video_input import identities, vllm_media
from rlassay.models.vllm_engine import (
    NEVER,
    adapter_request,
    check_lengths,
    check_prompts,
    collapse_runs,
    open_llm,
    served,
    video_problem,
    vllm_module,
)
from rlassay.signals.segments import vision_token_ids


class VLLMDecoder:
    """A policy in vLLM; calling it decodes a batch, see `rlassay.evaluation.decoding.Engine`.

    The token ids of the completions are those that vLLM sampled; nothing is tokenised again.

    Args:
        model: the policy, loaded by transformers; gives the special tokens, and weights that are not on disk.
        processor: its processor.
        section: the study's model section.
        weights: folder of its trained weights or adapter; None before training.
        copy: an empty folder, for weights that vLLM cannot load as they are.
        engine: the study's engine section.
        batch_size: most completions at a time.
        on_cpu: whether no GPU is used.
    """

    def __init__(  # noqa: PLR0913  # each set by keyword, once
        self,
        model: Model,
        processor: Processor,
        *,
        section: ModelConfig,
        weights: Path | None,
        copy: Path,
        engine: VLLMEngine,
        batch_size: int,
        on_cpu: bool,
    ) -> None:
        hub = section if isinstance(section, HubModel) else None
        self.processor = processor
        self.ends = end_token_ids(model, processor)
        self.model_type = str(model.config.model_type)
        is_vlm = isinstance(processor, ProcessorMixin)
        never = vision_token_ids(model.config) if is_vlm else []
        self.bias = dict.fromkeys(never, NEVER)  # a sampled image or video token would have no pixels
        self.image_token: int | None = cast(Any, processor).image_token_id if is_vlm else None
        self.policy = served(
            model,
            processor,
            name=None if hub is None else hub.name,
            weights=weights,
            revision=None if hub is None else hub.revision,
            copy=copy,
        )
        self.llm = open_llm(
            self.policy,
            dtype="float32" if hub is None else hub.dtype,
            on_cpu=on_cpu,
            batch_size=batch_size,
            gpu_memory_utilization=engine.gpu_memory_utilization,
            max_model_len=engine.max_model_length,
            enable_prefix_caching=engine.enable_prefix_caching,
            tensor_parallel_size=engine.tensor_parallel_size,
            trust_remote_code=None if hub is None else hub.trust_remote_code,
        )

    def __call__(self, conversations: Sequence[Any], images: Sequence[list[Any]], how: Decoding) -> list[Decoded]:
        """One completion per conversation; each has a seed of its own, so that the batch does not matter.

        Errors: ValueError for clips of a model that vLLM reads otherwise than transformers, and for prompts that leave
        too little room for completions, see `check_lengths`.
        """
        self.llm.reset_prefix_cache()  # keys and values of an earlier batch would depend on its content
        texts = self._texts(conversations)
        prompts = self._prompt_ids(conversations, texts, images)
        check_lengths(prompts, how.max_completion_length, self.llm)
        outputs = self.llm.generate(
            [self._request(*each) for each in zip(prompts, texts, images, strict=True)],
            [self._sampling(how, index) for index in range(len(prompts))],
            lora_request=adapter_request(self.policy),
            use_tqdm=False,
        )
        check_prompts(prompts, [each.prompt_token_ids for each in outputs])
        answers = [each.outputs[0] for each in outputs]
        ids = [list(answer.token_ids) for answer in answers]
        decoded: list[str] = cast(Any, tokenizer_of(self.processor)).batch_decode(ids, skip_special_tokens=True)
        ended = [answer.finish_reason == "stop" for answer in answers]
        return [
            Decoded(ids=each, text=text, finished=by_itself)
            for each, text, by_itself in zip(ids, decoded, ended, strict=True)
        ]

    @property
    def limit(self) -> int:
        """Most tokens of prompt and completion together."""
        return self.llm.llm_engine.model_config.max_model_len

    def close(self) -> None:
        """End vLLM and free its memory."""
        self.llm.llm_engine.engine_core.shutdown()

    def _texts(self, conversations: Sequence[Any]) -> list[str]:
        render: Any = self.processor
        return [render.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in conversations]

    def _prompt_ids(
        self, conversations: Sequence[Any], texts: Sequence[str], images: Sequence[list[Any]]
    ) -> list[list[int]]:
        """The ids of each prompt as the processor writes them; each distinct prompt is processed once."""
        keys: list[Hashable] = []
        distinct: dict[Hashable, int] = {}
        for index, (text, shown) in enumerate(zip(texts, images, strict=True)):
            keys.append((text, *identities(shown)))
            distinct.setdefault(keys[-1], index)
        first = list(distinct.values())
        inputs = processor_inputs(self.processor, [conversations[i] for i in first], [images[i] for i in first])
        rows = [
            ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
        of_key = dict(zip(distinct, rows, strict=True))
        return [of_key[key] for key in keys]

    def _request(self, ids: list[int], text: str, images: list[Any]) -> dict[str, Any]:
        if not images or self.image_token is None:
            return {"prompt_token_ids": ids}
        if any(isinstance(each, Clip) for each in images):
            if (problem := video_problem(self.model_type)) is not None:
                raise ValueError(problem)
            # vLLM writes the times of the frames and their tokens itself.
            sent = cast(Any, tokenizer_of(self.processor))(text, add_special_tokens=False)["input_ids"]
            return {"prompt_token_ids": sent, "multi_modal_data": vllm_media(images)}
        return {"prompt_token_ids": collapse_runs(ids, self.image_token), "multi_modal_data": {"image": images}}

    def _sampling(self, how: Decoding, index: int) -> Any:
        options: dict[str, Any] = {"temperature": 0.0}
        if how.sampled:
            options = {"temperature": how.temperature, "top_p": how.top_p, "top_k": how.top_k, "min_p": how.min_p}
        return vllm_module().SamplingParams(
            **options,
            seed=(how.seed + index) % 2**63,
            max_tokens=how.max_completion_length,
            # The same end tokens as in the other engine, not those of the model's own files.
            ignore_eos=True,
            stop_token_ids=self.ends,
            logit_bias=self.bias or None,
            detokenize=False,
        )
