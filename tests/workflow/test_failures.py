"""After failures the last line says how many runs failed with which error."""

from tests.workflow.project import Project


def test_the_last_line_is_the_error_and_how_many_runs_it_stopped(project: Project):
    project.append("src/rlassay/training/sft.py", "\n\ndef run_sft(*_):\n    raise OSError('no space left')\n")

    printed = project.snakemake(fails=True).strip().splitlines()

    assert printed[-1].startswith("1 run failed (sft_train of sft/")
    assert printed[-1].endswith("): OSError: no space left")
