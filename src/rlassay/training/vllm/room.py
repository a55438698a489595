"""Refuses, before training starts, prompts that leave vLLM no room for completions."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rlassay.config.engine import TransformersEngine, VLLMEngine, on_server
from rlassay.config.policies import Policy, policies
from rlassay.config.study import Study
from rlassay.config.training import Recipe
from rlassay.layout import Layout
from rlassay.models.policy import chat_format
from rlassay.models.prompt_length import prompt_lengths, require_room
from rlassay.models.vllm_engine import own_limit
from rlassay.ranks import is_main
from rlassay.records import read_rows
from rlassay.training.process import of_main


@dataclass(frozen=True, kw_only=True)
class Room:
    """Prompts, and the tokens that vLLM takes with them."""

    split: str
    """Name of the split."""
    key: str
    """The section of the study with the engine."""
    limit: int
    """Most tokens of prompt and completion together."""
    max_completion_length: int
    """Most tokens of a completion."""


def require_room_for_all(
    study: Study, layout: Layout, policy: Policy, model: Any, processor: Any, trainer: Any = None
) -> None:
    """Refuse a job whose runs vLLM would cut, in RL or in the evaluation.

    The runs of a warm start are those that follow it.

    Args:
        study: the study.
        layout: where its prompts lie.
        policy: the policy that is about to be trained.
        model: its model.
        processor: its processor.
        trainer: TRL's trainer, whose vLLM knows its limit; None where none samples.

    Errors: StudyError, see `require_room`.
    """
    limit = None if trainer is None or not trainer.use_vllm else of_main(_limit(trainer.vllm_generation))
    found = [policy] if policy.stage == "rl" else _after(study, policy)
    own = own_limit(model.config)
    rooms = {room for each in found for room in _rooms(study, each.recipe, limit, own)}
    for room in sorted(rooms, key=lambda room: (room.key, room.split)):
        rows = list(read_rows(layout.split(room.split)))
        lengths = prompt_lengths(rows, chat_format(processor, policy.recipe), layout.data)
        require_room(
            rows,
            lengths,
            room.limit,
            of=f"the split {room.split!r}",
            key=room.key,
            max_completion_length=room.max_completion_length,
        )


def _after(study: Study, warm_start: Policy) -> list[Policy]:
    """The runs that start from a warm start."""
    return [
        each
        for each in policies(study).values()
        if each.stage == "rl" and each.start is not None and each.start.folder == warm_start.folder
    ]


def _rooms(study: Study, recipe: Recipe, of_sampler: int | None, own: int | None) -> Iterator[Room]:
    """The prompts that vLLM gets of a run; none where its limit is unknown here."""
    rl, evaluation = recipe.rl, study.evaluation
    asked: Iterable[tuple[Any, str, tuple[str, ...], int | None]] = (
        (rl, "rl", ("train",), of_sampler or (None if on_server(rl.engine) else _stated(rl.engine, own))),
        (evaluation, "evaluation", evaluation.sets, _stated(evaluation.engine, own)),
    )
    for section, key, splits, limit in asked:
        if isinstance(section.engine, VLLMEngine) and limit is not None:
            for split in splits:
                yield Room(split=split, key=key, limit=limit, max_completion_length=section.max_completion_length)


def _stated(engine: TransformersEngine | VLLMEngine, own: int | None) -> int | None:
    return (engine.max_model_length or own) if isinstance(engine, VLLMEngine) else None


def _limit(generation: Any) -> int | None:
    """The limit of TRL's vLLM; None on a process that does not talk to its server."""
    if generation.mode == "colocate":
        return generation.llm.llm_engine.model_config.max_model_len
    if not is_main():
        return None
    client = generation.vllm_client
    return client.session.get(f"{client.base_url}/v1/models").json()["data"][0]["max_model_len"]
