"""A hand-made `Content` with every section filled, for tests of figures and page without files."""

from rlassay.report.content import ArmFacts, Comparison, Content, StudyFacts
from rlassay.report.findings.records import HackingSign, SuspectCompletion
from rlassay.report.numbers import (
    Column,
    Command,
    Curve,
    Design,
    DesignRow,
    Estimate,
    Example,
    MissingFile,
    PairedDifference,
    PolicyCollapse,
    PolicyCost,
    PolicyFacts,
    PolicyResumes,
    RewardPart,
    Series,
    ShownCompletion,
    Table,
    TableRow,
)
from tests.report.fake_credit import fake_credit
from tests.report.fake_data import fake_data

ARMS = {
    "base": "accuracy + format",
    "accuracy_only": "accuracy only",
    "format_only": "format only",
    "dr_grpo": "Dr. GRPO",
}
KEY = "test/choice_accuracy/sampled"
HOSTILE = "<script>alert('inert?')</script>"


def fake_content() -> Content:
    """Four arms x three seeds: one better, one worse, one not resolved; one hostile completion."""
    verdicts = (
        _comparison("accuracy_only", "base", "better", (0.081, 0.032, 0.13)),
        _comparison("format_only", "base", "worse", (-0.12, -0.18, -0.06)),
        _comparison("dr_grpo", "base", "not resolved", (0.004, -0.03, 0.038)),
    )
    return Content(
        study=_study(),
        headline="In accuracy, compared with 'accuracy + format': 'accuracy only' helps; 'format only' hurts.",
        complete=True,
        missing=(),
        arms=tuple(_arm(name, label) for name, label in ARMS.items()),
        verdicts=verdicts,
        gains=tuple(_comparison(arm, "sft", "better", (0.09, 0.04, 0.14)) for arm in ARMS),
        gains_note="The warm start is shared by all seeds: these intervals do not cover the variance of training it.",
        design=_design(),
        tables={name: _table(name) for name in ("main", "pass_at_k", "length", "parsing")},
        curves=(_curve("reward", "reward"), _curve("completions/mean_length", "length"), _curve("entropy", "policy")),
        hacking=tuple(_sign(arm, arm == "format_only") for arm in ARMS),
        rewards=tuple(_part(arm, reward) for arm in ARMS for reward in ("choice_accuracy", "soft_overlong")),
        examples=(_example(),),
        credit=fake_credit(),
        commands=(
            Command(target="accuracy only, seed 1", command="snakemake --cores all -R results/synthetic/x/train.json"),
        ),
        policies=(_policy("runs/base/seed1", "base", 1), _policy("sft/0123abcd", "sft", None)),
        data=fake_data(),
        config={"name": "synthetic", "seeds": [1, 2, 3]},
        cost=(_cost("runs/base/seed1", "accuracy + format", 1), _cost("sft/0123abcd", "SFT", None)),
        resumes=(PolicyResumes(policy="runs/base/seed1", steps=(20,)), PolicyResumes(policy="sft/0123abcd", steps=())),
    )


def collapses() -> tuple[PolicyCollapse, ...]:
    """Two runs that their guards ended."""
    reasons = {1: "entropy was 0.01, below min_entropy 0.05 once", 2: "kl was nan, above max_kl"}
    return tuple(
        PolicyCollapse(policy=f"runs/base/seed{seed}", step=7 + seed, max_steps=40, reason=reason)
        for seed, reason in reasons.items()
    )


def fake_partial() -> Content:
    """`fake_content` with one untrained arm and one arm with a single seed."""
    missing = MissingFile(
        path="runs/dr_grpo/seed1/train.json", needed_for="Dr. GRPO, seed 1", command="snakemake --cores all x"
    )
    content = fake_content()
    one_seed = content.verdicts[0].model_copy(
        update={
            "outcome": "seed variance not measured",
            "difference": PairedDifference(
                effect=0.08,
                low=0.05,
                high=0.11,
                p_value=None,
                p_holm=None,
                family_size=0,
                num_seeds=1,
                num_items=400,
                covers="items",
            ),
        }
    )
    absent = content.verdicts[2].model_copy(
        update={"outcome": "missing", "difference": None, "answer": "has no results yet.", "sentence": "Nothing."}
    )
    return content.model_copy(
        update={"complete": False, "missing": (missing,), "verdicts": (one_seed, content.verdicts[1], absent)}
    )


def _study() -> StudyFacts:
    return StudyFacts(
        id="synthetic",
        title="Does paying for the format help?",
        question="What does each reward add?",
        seeds=(1, 2, 3),
        baseline="base",
        primary=KEY,
        confidence=0.95,
        num_samples=8,
    )


def _design() -> Design:
    return Design(
        sentence="Confound check passed.",
        rows=(
            DesignRow(
                key="rl.loss_type",
                values=dict.fromkeys(ARMS, '"dapo"') | {"dr_grpo": '"dr_grpo"'},
                declared_by=("dr_grpo",),
                confounds=(),
            ),
        ),
    )


def _arm(name: str, label: str) -> ArmFacts:
    return ArmFacts(
        name=name,
        label=label,
        color="#0072b2" if name == "base" else None,
        varies=() if name == "base" else ("rewards",),
        weights={"choice_accuracy": 1.0, "soft_overlong": 0.0},
        seeds=(1, 2, 3),
        start="sft",
    )


def _comparison(arm: str, reference: str, outcome: str, numbers: tuple[float, float, float]) -> Comparison:
    difference = PairedDifference(
        effect=numbers[0],
        low=numbers[1],
        high=numbers[2],
        p_value=0.01,
        p_holm=0.02,
        family_size=3,
        num_seeds=3,
        num_items=400,
        covers="seeds and items",
    )
    return Comparison(
        arm=arm,
        reference=reference,
        outcome=outcome,
        answer=f"is {outcome} against {reference}: {100 * numbers[0]:+.1f} points.",
        sentence=f"{ARMS[arm]} against {reference}: {100 * numbers[0]:+.1f} percentage points.",
        difference=difference,
    )


def _estimate(mean: float, num_seeds: int = 3) -> Estimate:
    covers = "seeds and items" if num_seeds > 1 else "items"
    return Estimate(mean=mean, low=mean - 0.03, high=mean + 0.03, num_seeds=num_seeds, num_items=400, covers=covers)


def _column(metric: str, mode: str, unit: str, title: str) -> Column:
    return Column(
        key=f"test/{metric}/{mode}",
        set="test",
        metric=metric,
        mode=mode,
        title=title,
        unit=unit,
        better="higher" if unit == "share" else "neither",
        primary=f"test/{metric}/{mode}" == KEY,
    )


def _table(name: str) -> Table:
    columns = (
        _column("choice_accuracy", "sampled", "share", "Choice accuracy, sampled (avg@8)"),
        _column("choice_accuracy", "greedy", "share", "Choice accuracy, greedy"),
        _column("token_count", "sampled", "tokens", "Length"),
    )
    if name == "pass_at_k":
        columns = tuple(_column(f"pass_at_{k}", "sampled", "share", f"pass@{k}") for k in (1, 4, 8))
    policies = [("untrained", "untrained", "Untrained model", 1), ("sft", "sft", "SFT", 1)]
    policies += [(arm, "arm", label, 3) for arm, label in ARMS.items()]
    rows = tuple(
        TableRow(
            row=row,
            kind=kind,
            label=label,
            cells=(
                _estimate(0.3 + 0.05 * place, seeds),
                _estimate(0.4),
                _estimate(0.9 if name == "pass_at_k" else 9.5),
            ),
        )
        for place, (row, kind, label, seeds) in enumerate(policies)
    )
    return Table(name=name, title=f"Table {name}", note="What the reader must know.", columns=columns, rows=rows)


def _curve(metric: str, group: str) -> Curve:
    steps = tuple(range(1, 31))
    means = {arm: tuple(0.3 + 0.01 * step + 0.05 * place for step in steps) for place, arm in enumerate(ARMS)}
    series = [
        Series(arm=arm, num_seeds=3, steps=steps, mean=mean, low=_shift(mean, -0.05), high=_shift(mean, 0.05))
        for arm, mean in means.items()
    ]
    return Curve(metric=metric, title=metric, unit="value", group=group, series=tuple(series))


def _shift(values: tuple[float, ...], by: float) -> tuple[float, ...]:
    return tuple(value + by for value in values)


def _part(arm: str, reward: str) -> RewardPart:
    weight = 0.0 if reward == "soft_overlong" else 1.0
    judging = {"failed": {"timeout": 2}, "same_in_group": 0.25, "silent": False, "correlations": {"length": -0.5}}
    return RewardPart(
        arm=arm,
        reward=reward,
        role="trained" if weight else "observer",
        weight=weight,
        phases=((0.0, weight),),
        **judging | {"first": _estimate(0.35), "last": _estimate(0.5), "weighted_last": _estimate(0.5 * weight)},
        not_judged=0.0,
    )


def _sign(arm: str, alarm: bool) -> HackingSign:
    shown = SuspectCompletion(seed=2, step=59, prompt_id="0011aabb", text=f"again again {HOSTILE}", reward=1.5)
    return HackingSign(
        arm=arm,
        kind="repetition",
        title="repeated 4-grams",
        unit="share",
        before=_estimate(0.1),
        after=_estimate(0.8 if alarm else 0.12),
        threshold=0.1,
        alarm="Completions repeat themselves: from 10.0 to 80.0 %." if alarm else "",
        completions=(shown,) if alarm else (),
    )


def _example() -> Example:
    rows = {"untrained": "Untrained model", "sft": "SFT"} | ARMS
    return Example(
        prompt_id="0011aabb",
        set="test",
        question="Which digit is on the left?",
        choices=("1", "3", "5", "7"),
        answer="B",
        images=(),
        reason="The arms disagree here most: shares right from 0 % to 100 %.",
        completions=tuple(
            ShownCompletion(
                row=row,
                label=label,
                seed=None if row in ("untrained", "sft") else 1,
                text=HOSTILE if row == "sft" else "<think>3 and 7</think><answer>B</answer>",
                token_count=9,
                finished=row != "untrained",
                score=1.0 if row in ARMS else 0.0,
            )
            for row, label in rows.items()
        ),
    )


def _policy(policy: str, row: str, seed: int | None) -> PolicyFacts:
    facts = {"fingerprint": "0123abcd", "steps": 60, "max_steps": 60, "sha256": "0" * 64, "gpus": 0}
    return PolicyFacts(policy=policy, row=row, seed=seed, versions={"torch": "2.13.0", "trl": "1.16.0"}, **facts)


def _cost(policy: str, label: str, seed: int | None) -> PolicyCost:
    facts = {"seconds": 61.5, "generated_tokens": 92000, "peak_memory_mb": 800.0}
    per_step = {"step": 0.9, "generation": 0.5, "reward": 0.01}
    return PolicyCost(policy=policy, label=label, seed=seed, seconds_per_step=per_step, **facts)
