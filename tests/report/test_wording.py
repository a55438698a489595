"""Sentences that page and report.md share."""

from rlassay.report.provenance import PolicyResumes
from rlassay.report.wording import how_intervals_are_computed, resumed, total_cost, versions, what_was_run
from tests.report.fake_content import fake_content, fake_partial


def test_what_was_run_in_one_line():
    # 4 arms and seeds (1, 2, 3) in the fake; its one arm policy asked for 60 steps; 400 prompts in its set.
    assert what_was_run(fake_content()) == (
        "4 arms × 3 seeds, 60 RL steps per run, judged on 400 held-out prompts with 8 sampled completions each."
    )


def test_the_prompts_of_all_evaluation_sets_are_counted():
    content = fake_content()
    main = content.tables["main"]
    other = main.columns[0].model_copy(update={"set": "sft"})  # of 63 prompts
    tables = content.tables | {"main": main.model_copy(update={"columns": (*main.columns, other)})}
    assert "judged on 463 held-out prompts" in what_was_run(content.model_copy(update={"tables": tables}))


def test_nothing_trained_yet_is_still_a_sentence():
    content = fake_partial().model_copy(update={"policies": ()})
    assert what_was_run(content).startswith("4 arms × 3 seeds, judged on")


def test_intervals_are_explained_in_three_sentences_at_the_level_of_the_study():
    content = fake_content()
    study = content.study.model_copy(update={"confidence": 0.9})
    sentences = how_intervals_are_computed(content.model_copy(update={"study": study}))
    assert len(sentences) == 3
    assert "a 90% interval" in sentences[0]
    assert all(sentence.count(". ") == 0 and sentence.endswith(".") for sentence in sentences)


def test_cost_and_resumes_are_summed_up():
    content = fake_content()
    # two jobs of 61.5 s and 92,000 tokens
    assert total_cost(content) == "2 training jobs took 2 min 03 s of wall time in all and sampled 184,000 tokens."
    assert resumed(content) == "Resumed from a checkpoint: runs/base/seed1 at step 20."
    untouched = (PolicyResumes(policy="runs/base/seed1", steps=()),)
    assert resumed(content.model_copy(update={"resumes": untouched})) == "No job was interrupted."


def test_each_combination_of_versions_is_named_once():
    content = fake_content()
    assert versions(content) == "torch 2.13.0, trl 1.16.0"
    other = content.policies[1].model_copy(update={"versions": {"torch": "2.14.0"}})
    assert (
        versions(content.model_copy(update={"policies": (content.policies[0], other)}))
        == "torch 2.13.0, trl 1.16.0; or torch 2.14.0"
    )
