"""Which jobs run again after which edit; every output is an empty file, and nothing is trained."""

from tests.workflow.conftest import fake
from tests.workflow.project import Project

REPORT = "Write the report"
STUDY = "config/studies/smallest.yaml"
PLAIN = ("runs/plain/seed1", "runs/plain/seed2")
SHARP = ("runs/sharp/seed1", "runs/sharp/seed2")


def evaluated(*policies: str) -> set[str]:
    """The jobs that judge policies."""
    return {f"{job} {policy}" for policy in policies for job in ("Answer test with", "Score test of")}


def trained(*runs: str) -> set[str]:
    """The jobs that train runs, and judge them."""
    return {f"Train {run}" for run in runs} | evaluated(*runs)


def shared(project: Project) -> list[str]:
    """The policies that are no runs: the untrained model and the warm start."""
    return [
        str(folder.relative_to(project.results))
        for kind in ("models", "sft")
        for folder in (project.results / kind).iterdir()
    ]


def test_a_finished_study_has_nothing_to_do(project: Project):
    assert project.planned() == set()


def test_the_report_is_the_default_target(project: Project):
    (project.results / "report/index.html").unlink()

    assert project.planned() == {REPORT}


def test_all_arms_share_one_warm_start_and_one_untrained_model(project: Project):
    assert sorted(policy.split("/")[0] for policy in shared(project)) == ["models", "sft"]


def test_changing_one_arm_trains_that_arm_alone(project: Project):
    project.edit(STUDY, "temperature: 0.7", "temperature: 0.8")

    assert project.planned() == trained(*SHARP) | {REPORT}


def test_a_new_arm_is_trained_alone(project: Project):
    project.append(STUDY, "  hot:\n    varies: [rl.temperature]\n    rl: {temperature: 1.3}\n")

    assert project.planned() == trained("runs/hot/seed1", "runs/hot/seed2") | {REPORT}


def test_seeds_in_rounds_take_a_look_at_what_is_finished(project: Project):
    project.edit(STUDY, "seeds: [1, 2]", "seeds: {start: 2, max: 4, step: 1}")

    assert project.planned() == {"Look 1: which arms need more seeds?", REPORT}


def test_a_new_seed_trains_that_seed_of_every_arm(project: Project):
    project.edit(STUDY, "seeds: [1, 2]", "seeds: [1, 2, 3]")

    assert project.planned() == trained("runs/plain/seed3", "runs/sharp/seed3") | {REPORT}


def test_words_and_colours_rewrite_the_report_alone(project: Project):
    project.edit(STUDY, "title: The smallest", "title: A small")
    project.edit(STUDY, "  plain: {}", "  plain: {label: as usual, color: '#112233'}")

    assert project.planned() == {REPORT}


def test_a_reward_of_weight_0_is_a_change_of_the_arm(project: Project):
    project.append(STUDY, "    rewards: {think_answer_format: {weight: 0.0}}\n")
    project.edit(STUDY, "varies: [rl.temperature]", "varies: [rl.temperature, rewards.think_answer_format.weight]")

    assert project.planned() == trained(*SHARP) | {REPORT}


def test_more_samples_answer_again_without_training(project: Project):
    project.edit(STUDY, "num_samples: 2", "num_samples: 3")

    assert project.planned() == evaluated(*PLAIN, *SHARP, *shared(project)) | {REPORT}


def test_a_warm_start_of_its_own_is_trained_for_the_arm_that_has_it(project: Project):
    project.edit(STUDY, "varies: [rl.temperature]", "varies: [rl.temperature, sft.max_steps]")
    project.append(STUDY, "    sft: {max_steps: 1}\n")

    jobs = project.planned()

    starts = {job.removeprefix("Warm start ") for job in jobs if job.startswith("Warm start ")}
    assert len(starts) == 1
    assert jobs - {f"Warm start {start}" for start in starts} == trained(*SHARP) | evaluated(*starts) | {REPORT}


def test_editing_a_module_runs_the_stages_that_use_it(project: Project):
    project.append("src/rlassay/evaluation/score.py", "\nADDED = 1\n")

    assert project.planned() == {f"Score test of {each}" for each in (*PLAIN, *SHARP, *shared(project))} | {REPORT}


def test_editing_a_reward_trains_again_and_leaves_the_warm_start(project: Project):
    project.append("src/rlassay/rewards/__init__.py", "\nADDED = 1\n")

    jobs = project.planned()

    assert jobs >= trained(*PLAIN, *SHARP) | {REPORT}
    assert not any(job.startswith(("Warm start", "Prepare")) for job in jobs)


def test_editing_the_users_own_reward_trains_the_arm_that_uses_it_and_scores_again(project: Project, monkeypatch):
    monkeypatch.chdir(project.folder)
    project.append("mine.py", "def reward(item):\n    return 1.0\n")
    project.edit(STUDY, "varies: [rl.temperature]", "varies: [rl.temperature, rewards]")
    project.append(STUDY, "    rewards: {custom: {weight: 1.0, options: {path: 'mine.py:reward'}}}\n")
    fake(project)
    assert project.planned() == set()

    project.edit("mine.py", "1.0", "2.0")

    scores = {f"Score test of {each}" for each in (*PLAIN, *SHARP, *shared(project))}
    assert project.planned() == trained(*SHARP) | scores | {REPORT}


def test_editing_the_page_rewrites_the_report_alone(project: Project):
    template = next((project.folder / "src/rlassay/report/templates").iterdir())
    project.append(str(template.relative_to(project.folder)), "<!-- added -->\n")

    assert project.planned() == {REPORT}


def test_comments_and_docstrings_run_nothing(project: Project):
    project.append("src/rlassay/records.py", "\n# A comment in a module that every stage uses.\n")
    project.edit("src/rlassay/layout.py", '"""Folder of the report."""', '"""Folder of the report and its tables."""')

    assert project.planned() == set()


def test_forcing_a_run_trains_it_again(project: Project):
    assert project.planned("-R", "results/smallest/runs/sharp/seed2/train.json") == trained(SHARP[1]) | {REPORT}


def test_a_broken_study_stops_before_any_job(project: Project):
    project.edit(STUDY, "baseline: plain", "baseline: plane")

    printed = project.snakemake(fails=True)

    assert "baseline" in printed
    assert "did you mean 'plain'?" in printed
    assert "Traceback" not in printed
    assert "Job" not in printed
