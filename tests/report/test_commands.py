"""Shell lines that make files again."""

from pathlib import Path

from rlassay.config.settings import Settings
from rlassay.report.commands import Commands

SENTINEL = Path("results/digits-tiny/runs/base/seed1/train.json")


def test_lines_name_the_study_the_scale_and_the_file():
    commands = Commands(Settings(study="digits", scale="tiny"))
    assert commands.again(SENTINEL) == f"snakemake --cores all -R {SENTINEL} --config study=digits scale=tiny"
    assert commands.make(SENTINEL) == f"snakemake --cores all {SENTINEL} --config study=digits scale=tiny"


def test_another_results_folder_is_named_and_the_default_is_not():
    assert Commands(Settings(study="digits")).report() == "snakemake --cores all ablation_report --config study=digits"
    assert Commands(Settings(study="digits", results="/big/disk")).report().endswith("results=/big/disk")
