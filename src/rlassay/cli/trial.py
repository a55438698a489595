"""A trial of a study's inputs: read some rows, build prompts, score gold answers."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import TemplateError

from rlassay.config import Study, StudyError
from rlassay.config.data import Hub, TableSection
from rlassay.config.inputs import WEIGHT_SUFFIXES, split_paths
from rlassay.config.model import HubModel
from rlassay.config.training import Recipe, RewardConfig
from rlassay.data.images import ImageStore
from rlassay.data.ingest import Ingestor, length_check, reading_order
from rlassay.data.prepare import SOURCES, kind_problems
from rlassay.data.raw_examples import RowRejectedError, Source, UnsuitableRowError
from rlassay.files import sha256
from rlassay.models.hub import load_processor
from rlassay.models.policy import build_policy, chat_format, tokenizer_of
from rlassay.models.video_input import clip_problem
from rlassay.prompts import demonstrate
from rlassay.records import TRAINING_SPLITS, Completion, PromptRow, parse_row
from rlassay.rewards import IN_THEIR_OWN_PROCESS, READING_SIGNALS
from rlassay.rewards.outcomes import Failure, RewardError
from rlassay.rewards.sandbox.guard import guarded

ROWS = 8
"""Usable rows to read of each split."""
RECORDS = 64
"""Records to try for them."""
SHOWN = 3
"""Reasons of rejected records, or invalid records of a split, that are listed."""


@dataclass(kw_only=True)
class Trial:
    """The outcome of a trial."""

    problems: list[str] = field(default_factory=list[str])
    """One sentence for each reason why the study cannot run."""
    notes: list[str] = field(default_factory=list[str])
    """Parts that were not tried, and why."""
    rejected: list[str] = field(default_factory=list[str])
    """Lines about the records of each split that the data stage will leave out; the study runs without them."""
    rows: dict[str, list[PromptRow]] = field(default_factory=dict[str, list[PromptRow]])
    """The rows that were read, by split."""


def try_study(study: Study, *, deep: bool) -> Trial:
    """Try the data, models and rewards of a study; with `deep`, load models, and data from the hub."""
    trial = Trial()
    trial.problems += _shared_files(study)
    _try_data(study, trial, deep)
    _try_models(study, trial, deep)
    _try_rewards(study, trial)
    return trial


def _shared_files(study: Study) -> Iterator[str]:
    """Training splits that are read from the same rows as an evaluation split."""
    paths = split_paths(study.data)
    names: dict[str, object] = {split: sorted(_content(file) for file in files) for split, files in paths.items()}
    if isinstance(study.data, TableSection) and isinstance(study.data.origin, Hub):
        names = {split: study.data.origin.names.get(split, split) for split in study.data.splits}
    for one, other in combinations(names, 2):
        if names[one] and names[one] == names[other] and (one in TRAINING_SPLITS) != (other in TRAINING_SPLITS):
            yield f"data: the splits {one!r} and {other!r} have the same rows; expected different ones to test on"


def _content(file: Path) -> str:
    return sha256(file) if file.is_file() else f"missing {file}"


def _try_data(study: Study, trial: Trial, deep: bool) -> None:
    """Read the first usable rows of each split, evaluation splits first, like the data stage."""
    section = study.data
    origin = section.origin if isinstance(section, TableSection) else None
    if isinstance(origin, Hub) and _on_hub(origin.name) and not deep:
        trial.notes.append(f"the hub dataset {origin.name!r} (try it with --deep)")
        return
    limit = section.max_prompt_length
    if limit is not None and _on_hub(limit.model) and not deep:
        trial.notes.append(f"the length of prompts for {limit.model!r}, which is on the hub (try it with --deep)")
        limit = None
    with TemporaryDirectory() as folder:
        try:
            source = SOURCES[section.kind](section)
            store = ImageStore(Path(folder))
            ingestor = Ingestor(source=source, images=store, too_long=length_check(limit))
            for split in reading_order(source.examples):
                trial.rows[split] = _some_rows(split, source, ingestor, trial)
            shown = {split: Counter(str(len(row.media)) for row in rows) for split, rows in trial.rows.items()}
            trial.problems += kind_problems(shown, study)
        except StudyError as error:
            trial.problems += error.problems


def _some_rows(split: str, source: Source, ingestor: Ingestor, trial: Trial) -> list[PromptRow]:
    rows: list[PromptRow] = []
    reasons: Counter[str] = Counter()
    invalid: list[str] = []
    for example in islice(source.examples[split](), RECORDS):
        try:
            if isinstance(example, RowRejectedError):
                raise example
            rows.append(parse_row(ingestor.ingest(example, split).row.encode("utf-8"), split))
        except UnsuitableRowError as unsuitable:
            reasons[str(unsuitable)] += 1
        except RowRejectedError as rejected:
            where = getattr(example, "where", "")
            reasons[str(rejected)] += 1
            reason = f"{rejected} ({rejected.detail})" if rejected.detail else str(rejected)
            invalid.append(f"{where}: {reason}" if where else reason)
        if len(rows) == ROWS:
            break
    if source.strict and invalid:  # the data stage stops at any of them
        trial.problems += invalid[:SHOWN]
    elif not rows:
        listed = ", ".join(f"{count} because {reason}" for reason, count in reasons.most_common(SHOWN))
        nothing = (
            f"none of its first {reasons.total()} records can be used: {listed}" if listed else "it has no records"
        )
        trial.problems.append(f"data: split {split!r}: {nothing}")
    elif invalid and not source.generated:
        more = [f"and {len(invalid) - SHOWN} more"] if len(invalid) > SHOWN else []
        about = f"{len(invalid)} of the first {len(rows) + reasons.total()} records of split {split!r}"
        trial.rejected.append("\n    ".join([about, *invalid[:SHOWN], *more]))
    return rows


def _try_models(study: Study, trial: Trial, deep: bool) -> None:
    """Load the processor of each model and build the prompts of the rows; with `deep` load the model too."""
    tried: set[str] = set()
    rows = [row for split in trial.rows.values() for row in split]
    training = [row for split in TRAINING_SPLITS for row in trial.rows.get(split, [])]
    for arm in study.arms.values():
        model = arm.recipe.model
        key = f"{model.model_dump_json(exclude={'lora'})} {arm.recipe.sft is None}"
        if key in tried:
            continue
        tried.add(key)
        if isinstance(model, HubModel) and _on_hub(model.name) and not deep:
            trial.notes.append(f"the hub model {model.name!r} (try it with --deep)")
            continue
        found = list(_model_problems(model, arm.recipe, rows)) if isinstance(model, HubModel) else []
        if deep and training and not found:
            try:
                build_policy(model, training)
            except StudyError as error:
                found = list(error.problems)
            except ValueError as error:
                found = [f"model: {error}"]
        trial.problems += [problem for problem in found if problem not in trial.problems]


def _model_problems(model: HubModel, recipe: Recipe, rows: list[PromptRow]) -> Iterator[str]:
    folder = Path(model.name)
    if folder.is_dir() and not any(file.suffix in WEIGHT_SUFFIXES for file in folder.iterdir()):
        yield f"model.name: the folder {model.name} has no weights; expected *.safetensors or *.bin"
    try:
        processor = load_processor(model.name, revision=model.revision, trust_remote_code=model.trust_remote_code)
    except ValueError as error:
        yield f"model.name: {error}"
        return
    prepare: Any = processor
    if not prepare.chat_template:
        yield f"model.name: {model.name!r} has no chat template; choose an instruction-tuned model"
        return
    if tokenizer_of(processor) is processor and any(row.media for row in rows):
        yield f"model.name: rows show images, but {model.name!r} reads text only; choose an image-text-to-text model"
        return
    if (problem := clip_problem(model, processor)) is not None:
        yield problem
        return
    chat = chat_format(processor, recipe)
    for row in rows:
        try:
            prepare.apply_chat_template(chat.prompt(row), tokenize=False, add_generation_prompt=True)
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            yield f"model.name: the chat template of {model.name!r} cannot render a prompt: {error}"
            return


def _try_rewards(study: Study, trial: Trial) -> None:
    """Score the gold answer of each row, and an empty one."""
    rows = [row for split in trial.rows.values() for row in split]
    for name, reward in study.rewards.items():
        function = reward.kind or name
        if function in IN_THEIR_OWN_PROCESS:
            trial.notes.append(f"the reward {name!r}, which asks a model")
            model = reward.options.get("model")
            if isinstance(model, str) and not _on_hub(model) and not Path(model).is_dir():
                trial.problems.append(f"rewards.{name}.options.model: there is no model folder {model!r}")
        elif function in READING_SIGNALS - {"custom"}:
            trial.notes.append(f"the reward {name!r}, which reads signals of completions")
        elif rows:
            _try_reward(study, name, reward, rows, trial)


def _try_reward(study: Study, name: str, reward: RewardConfig, rows: list[PromptRow], trial: Trial) -> None:
    score = guarded(name, **reward.guard_arguments)
    judged = 0
    for row in rows:
        texts = (demonstrate(row.answer, "so it is"), "")
        group = [Completion(text=text, token_count=len(text) // 4 + 1, finished=True, row=row) for text in texts]
        try:
            outcomes = score.outcomes(group)
        except RewardError as error:
            trial.problems.append(f"rewards.{name}: {error}")
            return
        failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        if failed and "KeyError" in failed[0].text and (reward.kind or name) in READING_SIGNALS:
            trial.notes.append(
                f"the reward {name!r}, which reads values that only a run has: {failed[0].text.strip()[:200]}"
            )
            return
        if failed:
            trial.problems.append(f"rewards.{name}: {failed[0].kind} on a gold or empty answer: {failed[0].text}")
            return
        judged += any(outcome is not None for outcome in outcomes)
    if judged:
        return
    weights = [phase[1] for arm in study.arms.values() for phase in arm.recipe.weight_phases.get(name, ())]
    about = f"it can judge no row: of {len(rows)} rows it scored neither the gold answer nor an empty one"
    if any(weights) or study.primary.metric == name:
        trial.problems.append(f"rewards.{name}: {about}; choose a reward that fits the data")
    else:
        trial.notes.append(f"the reward {name!r} is only logged, and {about}")


def _on_hub(name: str) -> bool:
    """Whether a name is no local folder, and does not look like one."""
    return not Path(name).is_dir() and not name.startswith((".", "/", "~")) and name.count("/") <= 1
