"""From data to report: snakemake --cores all ablation_report [--config study=NAME scale=tiny engine=vllm]"""

from pathlib import Path

from snakemake.exceptions import WorkflowError

from rlassay.cli.failures import report_failures
from rlassay.cli.status import conclude
from rlassay.cli.terminal import follow_jobs, opening, shorten_lines
from rlassay.config import StudyError, load_settings, load_study, settings_from_snakemake
from rlassay.layout import PAGE, REPORT_NUMBERS, Layout


configfile: "config/config.yaml"


try:
    SETTINGS = settings_from_snakemake(config)
    CHOSEN = {"scale": SETTINGS.scale or "null", "engine": SETTINGS.engine or "null", "results": SETTINGS.results}
    if SETTINGS != load_settings(study=SETTINGS.study, **CHOSEN):
        raise StudyError(
            ["--config takes study, scale, engine and results; write other settings into config/config.yaml"]
        )
    STUDY = load_study(SETTINGS.study, SETTINGS.scale, SETTINGS.engine)
    LAYOUT = Layout(root=Path(SETTINGS.results) / STUDY.id)
    shorten_lines()
except StudyError as error:
    raise WorkflowError(str(error)) from None


include: "workflow/rules/common.smk"
include: "workflow/rules/cluster.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/sft.smk"
include: "workflow/rules/rl.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/rounds.smk"
include: "workflow/rules/report.smk"


workflow.default_target = "ablation_report"  # an included file sets no default


onstart:
    begin()
    follow_jobs(STUDY, LAYOUT)
    print(opening(STUDY))


onsuccess:
    conclude(STUDY, LAYOUT, on_cluster=not workflow.local_exec)


onerror:
    report_failures(STUDY, LAYOUT)
