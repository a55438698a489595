"""The stage `decide`, which compares the arms and gives some of them more seeds.

It runs between two rounds of sequential seeds.
"""

from rlassay.config.settings import Settings
from rlassay.config.study import Study
from rlassay.files import write_json
from rlassay.layout import Layout
from rlassay.report.findings.records import Look
from rlassay.report.findings.rounds import decide_look, look_summary
from rlassay.report.gather import gather
from rlassay.report.verdicts import compare_with_baseline


def run_decide(study: Study, layout: Layout, settings: Settings, look: int) -> Look:
    """Write `looks/look<k>.json` and print the decisions of the look.

    Args:
        study: a study with sequential seeds.
        layout: paths of its results.
        settings: level of the other intervals, and the study's name for commands.
        look: the look, counted from 1.

    Raises:
        ResultsError: a file of the rounds up to this look is missing or damaged.
        ValueError: the study has no such look.
    """
    looks = () if study.sequential is None else study.sequential.looks
    if not 1 <= look <= len(looks):
        raise ValueError(f"look is {look}; expected one of the study's {len(looks)} looks at sequential seeds")
    results = gather(study, layout, settings, before=look)
    found = decide_look(results, compare_with_baseline(results, settings.report.confidence, plan=False), look)
    write_json(layout.decision(look), found.model_dump(mode="json"))
    print(look_summary(found, {name: arm.label for name, arm in study.arms.items()}, len(looks)))
    return found
