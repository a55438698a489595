"""The stage `ablation_report`: read the results, build the content, write it, print the verdicts."""

import json
from pathlib import Path
from typing import Any, get_args

import pandas as pd  # pyright: ignore[reportMissingTypeStubs]
from rich.console import Console
from rich.text import Text

from rlassay.config.policies import seeds_by_arm
from rlassay.config.settings import ReportSettings, Settings
from rlassay.config.study import Study
from rlassay.layout import PAGE, REPORT_NUMBERS, TABLES, Layout
from rlassay.records import Record
from rlassay.report.completions.browser import write_browser
from rlassay.report.content import ArmFacts, Content, StudyFacts
from rlassay.report.credit_view import build_credit, credit_rows
from rlassay.report.curves import build_curves
from rlassay.report.examples import build_examples
from rlassay.report.export.latex import latex_tables
from rlassay.report.findings.answer import modes_apart
from rlassay.report.findings.attribution import build_attribution
from rlassay.report.findings.design import build_design
from rlassay.report.findings.engines import engine_sentences
from rlassay.report.findings.hacking import build_hacking
from rlassay.report.findings.held_out import build_held_out, equal_rows, held_out_rows
from rlassay.report.findings.profiles import build_frontier, build_profiles
from rlassay.report.findings.provenance import build_provenance
from rlassay.report.findings.records import Attribution
from rlassay.report.findings.rounds import build_rounds
from rlassay.report.findings.summaries import build_summaries
from rlassay.report.gather import Results, gather, reading
from rlassay.report.numbers import Table
from rlassay.report.page import write_page
from rlassay.report.sections import (
    build_collapses,
    build_commands,
    build_cost,
    build_links,
    build_policies,
    build_resumes,
    build_reward_parts,
    build_splits,
)
from rlassay.report.tables import build_tables, primary_column
from rlassay.report.typeset import quoted
from rlassay.report.verdicts import (
    compare_with_baseline,
    compare_with_references,
    compare_with_start,
    headline_of,
    start_note,
    start_of,
)

NOT_IN_CSV = {"other_modes", "warnings", "flips"}
"""Lists of a comparison, which have files of their own or are in `report.json` alone."""
COLORS = {"better": "green", "worse": "red"}
"""Outcome of a verdict -> colour in the terminal."""


def run_report(study: Study, layout: Layout, settings: Settings, partial: bool = False) -> Content:
    """Write `report.json`, `tables/`, `figures/`, `index.html` and `report.md`; print verdicts and path of the page.

    Args:
        study: the study.
        layout: paths of its results.
        settings: level of the intervals, number of examples, and the study's name for commands.
        partial: report on the finished policies instead of raising if files are missing.

    Raises:
        ResultsError: a file is missing (unless `partial`) or damaged; it names the command that makes it.
    """
    # 1. Read the files on disk.
    results = gather(study, layout, settings, partial)
    # 2. Build the content of the report.
    content = build_content(results, settings.report)
    # 3. Write the numbers before the page: Snakemake takes the page as the sign that all is written.
    folder = layout.partial_report if partial else layout.report
    write_numbers(content, folder)
    write_browser(results, content, folder, settings.report.rollout_steps)
    write_page(content, folder)
    # 4. Print the verdicts.
    announce(content, folder)
    return content


# The content.


def build_content(results: Results, settings: ReportSettings) -> Content:
    """The content of the report, from the results and the settings.

    Only `cost`, `resumes`, `provenance` and `mlflow` do not follow from the results.
    """
    confidence = settings.confidence
    verdicts, gains = compare_with_baseline(results, confidence), compare_with_start(results, confidence)
    labels = {key: row.label for key, row in results.rows.items()}
    return Content(
        study=_study_facts(results, confidence),
        headline=headline_of(results, verdicts),
        complete=not results.missing,
        missing=results.missing,
        arms=tuple(_arm_facts(results, name) for name in results.study.arms),
        verdicts=tuple(verdicts),
        rounds=build_rounds(results),
        attribution=build_attribution(results, confidence),
        gains=tuple(gains),
        modes_apart=tuple(modes_apart(gains, labels, primary_column(results))),
        hacking=tuple(build_hacking(results, gains, settings.hacking, confidence)),
        summaries=tuple(build_summaries(results, gains, confidence)),
        profiles=build_profiles(results, confidence),
        frontier=build_frontier(results),
        references=tuple(compare_with_references(results, confidence)),
        gains_note=start_note(results),
        design=build_design(results.study),
        engines=engine_sentences(results),
        tables=build_tables(results, confidence),
        curves=tuple(build_curves(results, confidence)),
        held_out=build_held_out(results, confidence),
        rewards=tuple(build_reward_parts(results, confidence)),
        examples=tuple(build_examples(results, settings.examples)),
        credit=build_credit(results, confidence),
        commands=tuple(build_commands(results)),
        policies=tuple(build_policies(results)),
        data=tuple(build_splits(results)),
        config=results.study.model_dump(mode="json"),
        mlflow=build_links(results),
        collapses=tuple(build_collapses(results)),
        provenance=build_provenance(results),
        cost=tuple(build_cost(results)),
        resumes=tuple(build_resumes(results)),
    )


def _study_facts(results: Results, confidence: float) -> StudyFacts:
    study = results.study
    return StudyFacts(
        id=study.id,
        title=study.title,
        question=study.question,
        seeds=max(seeds_by_arm(study, results.layout).values(), key=len),
        baseline=study.baseline,
        primary=primary_column(results).key,
        smallest_effect=study.primary.smallest_effect,
        confidence=confidence,
        num_samples=study.evaluation.num_samples,
        num_checkpoints=study.primary.num_checkpoints,
    )


def _arm_facts(results: Results, name: str) -> ArmFacts:
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


# report.json and tables/*.csv.


def rewrite(folder: Path) -> Content:
    """Write tables, figures, page and report.md again from the folder's `report.json` alone.

    This serves after an update, for example.

    Raises:
        ResultsError: the file is absent, or of another version of the package.
    """
    path = folder / REPORT_NUMBERS
    with reading(path, "rlassay status"):
        content = Content.model_validate_json(path.read_text(encoding="utf-8"))
    write_numbers(content, folder)
    write_page(content, folder)
    return content


def write_numbers(content: Content, folder: Path) -> None:
    """Write `report.json`, `tables/*.csv` and `tables/*.tex`; tables of an earlier report are removed."""
    tables = folder / TABLES
    tables.mkdir(parents=True, exist_ok=True)
    frames = build_frames(content)
    files = {f"{name}.csv": _csv(frame) for name, frame in frames.items()}
    files |= {f"{name}.tex": text for name, text in latex_tables(content).items()}
    for stale in {path for ending in ("csv", "tex") for path in tables.glob(f"*.{ending}")}:
        if stale.name not in files:
            stale.unlink()
    for name, text in files.items():
        _write(tables / name, text)
    # Sections below the first level keep the study's order, so that the page can be made from this file alone.
    sections = dict(sorted(content.model_dump(mode="json").items()))
    text = json.dumps(sections, indent=1, ensure_ascii=False, allow_nan=False)
    _write(folder / REPORT_NUMBERS, text + "\n")


def build_frames(content: Content) -> dict[str, pd.DataFrame]:
    """Table name -> one row per number, with its seeds, items and interval."""
    frames: dict[str, pd.DataFrame] = {name: pd.DataFrame(_cells(table)) for name, table in content.tables.items()}
    for name, records in (
        ("verdicts", content.verdicts),
        ("gains", content.gains),
        ("references", content.references),
        ("rewards", content.rewards),
        ("summaries", content.summaries),
    ):
        frames[name] = pd.json_normalize([_row(one) for one in records])  # pyright: ignore[reportUnknownMemberType] pandas has no stubs
    for name, rows in (("modes", _modes(content)), ("flips", _flips(content)), ("design", _design(content))):
        frames[name] = pd.json_normalize(rows)  # pyright: ignore[reportUnknownMemberType] pandas has no stubs
    for name, records in (("cost", content.cost), ("policies", content.policies)):
        frames[name] = pd.json_normalize([one.model_dump() for one in records])  # pyright: ignore[reportUnknownMemberType] pandas has no stubs
    frames["curves"] = pd.DataFrame(
        [
            {"metric": curve.metric, "unit": curve.unit, "arm": one.arm, "num_seeds": one.num_seeds, **point}
            for curve in content.curves
            for one in curve.series
            for point in _points(one.steps, one.mean, one.low, one.high)
        ]
    )
    if content.held_out is not None:
        for name, rows in (
            ("held_out", held_out_rows(content.held_out)),
            ("equal_tokens", equal_rows(content.held_out)),
        ):
            frames[name] = pd.json_normalize([_flat(row) for row in rows])  # pyright: ignore[reportUnknownMemberType] pandas has no stubs
    signs = [_flat(one.model_dump(exclude={"completions"})) for one in content.hacking]
    frames["hacking"] = pd.json_normalize(signs)  # pyright: ignore[reportUnknownMemberType] pandas has no stubs
    if content.attribution is not None:
        frames["attribution"] = pd.json_normalize(_effects(content.attribution))  # pyright: ignore[reportUnknownMemberType] pandas has no stubs
    credit = {} if content.credit is None else credit_rows(content.credit)
    return frames | {name: pd.DataFrame(rows) for name, rows in credit.items()}


def _cells(table: Table) -> list[dict[str, Any]]:
    return [
        {"row": row.row, "label": row.label, "column": column.key, "unit": column.unit, **_flat(cell.model_dump())}
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
    ]


def _modes(content: Content) -> list[dict[str, Any]]:
    """The comparisons with the baseline in the other modes of the metric."""
    return [
        {"arm": one.arm, "reference": one.reference, **_flat(mode.model_dump())}
        for one in content.verdicts
        for mode in one.other_modes
    ]


def _flips(content: Content) -> list[dict[str, Any]]:
    """Prompts won and lost against the baseline; ids are separated by blanks."""
    found: list[dict[str, Any]] = []
    for one in content.verdicts:
        if one.flips is not None:
            counts = one.flips.model_dump(exclude={"won_prompts", "lost_prompts"})
            ids = {"won_prompts": " ".join(one.flips.won_prompts), "lost_prompts": " ".join(one.flips.lost_prompts)}
            found.append({"arm": one.arm, "reference": one.reference, **counts, **ids})
    return found


def _design(content: Content) -> list[dict[str, Any]]:
    return [{"setting": row.key, **row.values} for row in content.design.rows]


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")  # pyright: ignore[reportUnknownMemberType] pandas has no stubs


def _effects(attribution: Attribution) -> list[dict[str, Any]]:
    return [
        {"kind": method.kind, **_flat(one.model_dump()), "ingredients": " ".join(one.ingredients)}
        for method in attribution.methods
        for one in method.effects
    ]


def _row(record: Record) -> dict[str, Any]:
    """Fields of a record, by column.

    A null in place of another record has the fields of that record, so that columns do not depend on the numbers.
    """
    fields = _flat(record.model_dump(exclude=NOT_IN_CSV))
    for name, field in type(record).model_fields.items():
        if name in fields and fields[name] is None:
            kinds = (kind for kind in get_args(field.annotation) if isinstance(kind, type) and issubclass(kind, Record))
            fields[name] = next((dict.fromkeys(kind.model_fields) for kind in kinds), None)
    return fields


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields with the values of seeds joined into one text, separated by blanks."""
    return {
        key: " ".join("nan" if one is None else f"{one:g}" for one in value) if key == "by_seed" else value
        for key, value in fields.items()
    }


def _points(*columns: tuple[Any, ...]) -> list[dict[str, Any]]:
    names = ("step", "mean", "low", "high")
    return [dict(zip(names, point, strict=True)) for point in zip(*columns, strict=True)]


def _write(path: Path, text: str) -> None:
    # A completion may hold half of a surrogate pair, which UTF-8 cannot encode; as an escape it is valid JSON.
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


# The terminal.


def announce(content: Content, folder: Path) -> None:
    """Print the verdicts, the number of missing files and the path of the page."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(f"\n{content.study.title}", style="bold"))
    for verdict in content.verdicts:
        console.print(Text(f"  {verdict.sentence}", style=COLORS.get(verdict.outcome, "")))
    if content.rounds is not None:
        console.print(Text(f"  {content.rounds.sentence}"))
    for sentence in content.modes_apart:
        console.print(Text(f"  Warning: {sentence}", style="yellow"))
    for sign in content.hacking:
        if sign.alarm:
            label = next(arm.label for arm in content.arms if arm.name == sign.arm)
            console.print(Text(f"  Warning, arm {quoted(label)}: {sign.alarm}: {sign.numbers}.", style="yellow"))
    if content.missing:
        are = "1 file is" if len(content.missing) == 1 else f"{len(content.missing)} files are"
        console.print(Text(f"  Partial: {are} missing; the page lists them."))
    console.print(Text(f"Page: {folder / PAGE}\n"))
