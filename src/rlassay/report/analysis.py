"""From the results on disk to everything that the report says."""

from rlassay.config.settings import ReportSettings
from rlassay.report.content import ArmFacts, Content, StudyFacts
from rlassay.report.credit_view import build_credit
from rlassay.report.curves import build_curves
from rlassay.report.data_splits import build_splits
from rlassay.report.design import build_design
from rlassay.report.examples import build_examples
from rlassay.report.gather import Results
from rlassay.report.origins import build_commands, build_cost, build_policies, build_resumes
from rlassay.report.reward_parts import build_reward_parts
from rlassay.report.tables import build_tables, primary_column
from rlassay.report.verdicts import compare_with_baseline, compare_with_start, start_note, start_of


def analyse(results: Results, settings: ReportSettings) -> Content:
    """The report's content; equal for equal results but for `cost` and `resumes`."""
    confidence = settings.confidence
    return Content(
        study=_study(results, confidence),
        complete=not results.missing,
        missing=results.missing,
        arms=tuple(_arm(results, name) for name in results.study.arms),
        verdicts=tuple(compare_with_baseline(results, confidence)),
        gains=tuple(compare_with_start(results, confidence)),
        gains_note=start_note(results),
        design=build_design(results.study),
        tables=build_tables(results, confidence),
        curves=tuple(build_curves(results, confidence)),
        rewards=tuple(build_reward_parts(results, confidence)),
        examples=tuple(build_examples(results, settings.examples)),
        credit=build_credit(results, confidence),
        commands=tuple(build_commands(results)),
        policies=tuple(build_policies(results)),
        data=tuple(build_splits(results)),
        config=results.study.model_dump(mode="json"),
        cost=tuple(build_cost(results)),
        resumes=tuple(build_resumes(results)),
    )


def _study(results: Results, confidence: float) -> StudyFacts:
    study = results.study
    return StudyFacts(
        id=study.id,
        title=study.title,
        question=study.question,
        seeds=study.seeds,
        baseline=study.baseline,
        primary=primary_column(results).key,
        confidence=confidence,
        num_samples=study.evaluation.num_samples,
    )


def _arm(results: Results, name: str) -> ArmFacts:
    arm = results.study.arms[name]
    return ArmFacts(
        name=name,
        label=arm.label,
        color=arm.color,
        varies=arm.varies,
        weights={reward: section.weight for reward, section in arm.recipe.rewards.items()},
        seeds=results.rows[name].seeds,
        start=start_of(results, name).key,
    )
