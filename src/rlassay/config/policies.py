"""All policies of a study: models before training, references, warm starts, and runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from rlassay.config.fingerprints import model_id, rl_id, sft_id
from rlassay.config.inputs import snapshot
from rlassay.config.model import HubModel, TinyLM, TinySeq2Seq
from rlassay.config.study import Study
from rlassay.config.training import Recipe
from rlassay.files import read_json
from rlassay.layout import Layout

REFERENCE = "reference"
"""Stage of a model that the study names under `references`."""
SHARED_LABELS = {"model": "Untrained model", "sft": "SFT"}
"""Stage -> name of a policy without arm, on the page and in MLflow."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Weights to evaluate: an untrained model, a reference, a warm start, or a run.

    A run is one arm trained with one seed.
    """

    stage: Literal["model", "reference", "sft", "rl"]
    """The stage that made it; `model` is a model before any training, `reference` one that the study names."""
    recipe: Recipe
    """The recipe of its arm, or of the first arm that uses it; for a model, the first arm whose RL starts from it."""
    fingerprint: str
    """Identifies its weights within its folder."""
    start: "Policy | None"
    """The policy whose weights its training begins with; None for a model before any training."""
    arm: str | None = None
    """Its arm; None for a policy that arms share."""
    seed: int | None = None
    """Its seed; None for a policy that seeds share."""
    reference: str | None = None
    """Its name under `references`; None for any other policy."""

    @property
    def is_trained(self) -> bool:
        """Whether a job of the study trains it."""
        return self.stage in ("sft", "rl")

    @property
    def stem(self) -> str:
        """Folder that it shares with its other seeds, such as `models/<id>`, `sft/<id>` or `runs/<arm>`."""
        if self.arm is not None:
            return Layout.run(self.arm)
        if self.reference is not None:
            return Layout.reference(self.reference, self.fingerprint)
        return Layout.warm_start(self.fingerprint) if self.stage == "sft" else Layout.untrained(self.fingerprint)

    @property
    def folder(self) -> str:
        """Its folder below the study's results: `<stem>`, or `<stem>/seed<k>` if it has a seed."""
        if self.arm is not None:
            return Layout.run(self.arm, self.seed)
        return Layout.warm_start(self.fingerprint, self.seed) if self.stage == "sft" else self.stem


def label_of(study: Study, policy: Policy, every: Iterable[Policy]) -> str:
    """The name of a policy's row on the page and of its runs in MLflow.

    Args:
        study: the study.
        policy: one of its policies.
        every: its policies. Where several of a stage belong to no arm, each is named after the first arm that uses it.
    """
    if policy.arm is not None:
        return study.arms[policy.arm].label
    if policy.reference is not None:
        return study.references[policy.reference].label or policy.reference
    shared = SHARED_LABELS[policy.stage]
    if len({one.fingerprint for one in every if one.stage == policy.stage}) == 1:
        return shared
    identify = sft_id if policy.stage == "sft" else model_id
    users = (arm for arm in study.arms.values() if policy.stage == "model" or arm.recipe.sft is not None)
    return f"{shared} for {next(arm.label for arm in users if identify(study, arm.recipe) == policy.fingerprint)}"


def policies(study: Study) -> dict[str, Policy]:
    """The policies by folder: models before training, references, warm starts, runs.

    Each kind is in the order of the study.
    """
    with snapshot():
        return _policies(study)


def asked_policies(study: Study, layout: Layout, before: int | None = None) -> dict[str, Policy]:
    """The policies that a study needs so far.

    With sequential seeds these are the ones that its looks asked for, otherwise all of them.

    Args:
        study: the study.
        layout: paths of its files.
        before: count only the looks before this one, of which the first is 1; None counts all.
    """
    every, seeds = policies(study), seeds_by_arm(study, layout, before)
    runs = {folder: one for folder, one in every.items() if one.arm is not None and one.seed in seeds.get(one.arm, ())}
    starts = {one.start.folder for one in runs.values() if one.start is not None}
    return {folder: one for folder, one in every.items() if folder in runs or folder in starts or not one.is_trained}


def folder_pattern(every: Mapping[str, Policy]) -> str:
    """A regular expression that matches the folders of these policies and no other text.

    Snakemake copies it into every path with the wildcard `policy`, so that each folder in full would make the time of a
    plan grow with the square of the runs. Stems with the same seeds are therefore listed once.

    Args:
        every: the policies by folder, as `policies` returns them.
    """
    tails: dict[str, list[str]] = {}
    for folder, one in every.items():
        tails.setdefault(one.stem, []).append(folder.removeprefix(one.stem))
    stems: dict[str, list[str]] = {}
    for stem, ends in tails.items():
        stems.setdefault("|".join(ends), []).append(stem)
    return "|".join(f"(?:{'|'.join(alike)})(?:{ends})" for ends, alike in stems.items())


def seeds_by_arm(study: Study, layout: Layout, before: int | None = None) -> dict[str, tuple[int, ...]]:
    """Arm -> the seeds that it needs so far; see `asked_policies`."""
    rounds = study.sequential
    if rounds is None:
        return dict.fromkeys(study.arms, study.seeds)
    counts = dict.fromkeys(study.arms, rounds.start)
    for look, seeds in enumerate(rounds.looks[1:], 1):
        undecided = [] if before is not None and look >= before else undecided_arms(layout, look)
        if not undecided:
            break
        counts |= dict.fromkeys((*undecided, study.baseline), seeds)
    return {arm: study.seeds[:count] for arm, count in counts.items()}


def undecided_arms(layout: Layout, look: int) -> list[str]:
    """The arms that get more seeds after a look; empty if it decided all, or has not been taken."""
    return list((read_json(layout.decision(look)) or {}).get("undecided", []))


def _policies(study: Study) -> dict[str, Policy]:
    models = _models(study)
    starts: dict[str, Policy] = {}
    runs: dict[str, Policy] = {}
    for name, arm in study.arms.items():
        for seed in study.seeds:
            start = _start(study, arm.recipe, seed, models[model_id(study, arm.recipe)])
            if start.stage == "sft":
                starts.setdefault(start.folder, start)
            run = Policy(
                stage="rl", recipe=arm.recipe, fingerprint=rl_id(study, name, seed), start=start, arm=name, seed=seed
            )
            runs[run.folder] = run
    return {one.folder: one for one in (*models.values(), *_references(study))} | starts | runs


def _references(study: Study) -> list[Policy]:
    """The models of `references`, evaluated with the prompts of the baseline's recipe."""
    recipe = study.arms[study.baseline].recipe
    found: list[Policy] = []
    for name, one in study.references.items():
        own = {"kind": "hub", "name": one.path, "revision": one.revision, "dtype": one.dtype or "float32"}
        base = recipe.model
        if isinstance(base, HubModel):
            own |= {"dtype": one.dtype or base.dtype, "attn_implementation": base.attn_implementation}
        if isinstance(base, TinySeq2Seq) or (isinstance(base, HubModel) and base.architecture == "seq2seq"):
            own["architecture"] = "seq2seq"
        model = HubModel.model_validate(own)
        if not isinstance(base, TinyLM | TinySeq2Seq):
            model = model.model_copy(update={"clips": base.clips})
        asked = recipe.model_copy(update={"model": model})
        fingerprint = model_id(study, asked)
        found.append(Policy(stage=REFERENCE, recipe=asked, fingerprint=fingerprint, start=None, reference=name))
    return found


def _models(study: Study) -> dict[str, Policy]:
    """The models before training by fingerprint, in the order of the arms."""
    models: dict[str, Policy] = {}
    for arm in study.arms.values():
        recipe, fingerprint = arm.recipe, model_id(study, arm.recipe)
        # Prompts state the format only without a warm start; the gain of such an arm needs its model's score on them.
        if fingerprint not in models or (recipe.sft is None and models[fingerprint].recipe.sft is not None):
            models[fingerprint] = Policy(stage="model", recipe=recipe, fingerprint=fingerprint, start=None)
    return models


def _start(study: Study, recipe: Recipe, seed: int, model: Policy) -> Policy:
    """The warm start of a run, or the model itself for a recipe without one."""
    if recipe.sft is None:
        return model
    own_seed = seed if recipe.sft.per_seed else None
    return Policy(stage="sft", recipe=recipe, fingerprint=sft_id(study, recipe), start=model, seed=own_seed)
