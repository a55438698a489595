"""Shell commands that make files, or make them again."""

from pathlib import Path

from rlassay.config.load import Commands
from rlassay.config.settings import Settings

MANIFEST = Path("results/digits-tiny/runs/base/seed1/train.json")


def test_commands_have_study_scale_and_file():
    commands = Commands(Settings(study="digits", scale="tiny"))
    assert commands.remake(MANIFEST) == f"snakemake --cores all -R {MANIFEST} --config study=digits scale=tiny"
    assert commands.make(MANIFEST) == f"snakemake --cores all {MANIFEST} --config study=digits scale=tiny"


def test_only_a_results_folder_other_than_the_default_is_in_the_command():
    assert Commands(Settings(study="digits")).report() == "snakemake --cores all ablation_report --config study=digits"
    assert Commands(Settings(study="digits", results="/big/disk")).report().endswith("results=/big/disk")
