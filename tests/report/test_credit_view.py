"""The credit viewer: what is shown, what is left out, and that it is left out where nothing was recorded."""

import pytest

from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.report import credit_view
from rlassay.report.analysis import analyse
from rlassay.report.credit_view import build_credit
from rlassay.report.figures import assign_marks
from rlassay.report.gather import Results, gather
from rlassay.report.page import render_page
from rlassay.report.reading import ResultsError
from tests.report.conftest import SETTINGS
from tests.report.synthetic_credit import write_shard


def test_every_scene_shows_every_arm_on_one_prompt(credit_results: Results):
    credit = build_credit(credit_results, 0.95)
    assert credit is not None
    assert credit.seed == 1
    # Four steps were watched, two prompts each; four arms, so six scenes are 24 completions.
    assert [(scene.step, scene.rank, scene.stage) for scene in credit.scenes] == [
        (1, 0, "first"),
        (1, 1, "first"),
        (3, 0, "middle"),
        (3, 1, "middle"),
        (4, 0, "last"),
        (4, 1, "last"),
    ]
    for scene in credit.scenes:
        assert [one.arm for one in scene.completions] == list(credit_results.study.arms)
        assert scene.question.startswith("Which digit is on the left?")
        assert (credit_results.layout.report / str(scene.image)).resolve().is_file()
    base, attention, filtered, scaled = credit.scenes[0].completions
    assert {word.weight for word in base.words} == {1.0}
    assert (base.heat, base.scale) == (None, None)
    assert attention.heat is not None
    assert {word.weight for word in filtered.words} <= {0.0, 1.0}
    assert scaled.scale is not None
    assert [arm.arm for arm in credit.words] == list(credit_results.study.arms)
    assert credit.words[0].even == 1.0
    assert credit.words[2].most[0].weight.mean == 1.0


def test_without_token_shards_there_is_nothing_to_show(results: Results):
    assert build_credit(results, 0.95) is None


def test_even_weights_and_no_signal_are_nothing_to_show(copied_credit: tuple[Study, Layout]):
    study, layout = copied_credit
    for arm in list(study.arms)[1:]:
        for seed in study.seeds:
            for path in layout.tokens(layout.run(arm, seed)).iterdir():
                path.unlink()
    assert build_credit(gather(study, layout, SETTINGS), 0.95) is None


def test_first_prompts_come_first_where_not_all_fit(credit_results: Results, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(credit_view, "MAX_COMPLETIONS", 9)
    credit = build_credit(credit_results, 0.95)
    assert credit is not None
    assert [(scene.step, scene.rank) for scene in credit.scenes] == [(1, 0), (4, 0)]
    assert "2 of the 6 prompts that all arms watched at these steps fit." in credit.note


def test_an_arm_that_is_not_shown_is_named(copied_credit: tuple[Study, Layout]):
    study, layout = copied_credit
    for seed in study.seeds:
        for path in layout.tokens(f"runs/dr_grpo/seed{seed}").iterdir():
            path.unlink()
    credit = build_credit(gather(study, layout, SETTINGS), 0.95)
    assert credit is not None
    assert credit.note.endswith("Not shown: dr grpo.")
    assert len(credit.scenes[0].completions) == 3


def test_arms_without_a_common_prompt_still_have_words(copied_credit: tuple[Study, Layout]):
    study, layout = copied_credit
    for path in layout.tokens("runs/base/seed1").iterdir():
        write_shard(path.parent, int(path.stem[4:]), [])
    credit = build_credit(gather(study, layout, SETTINGS), 0.95)
    assert credit is not None
    assert credit.scenes == ()
    assert credit.note == "The arms watched no prompt in common, so none is shown."
    assert len(credit.words) == 4


def test_prompts_that_the_data_lack_are_named(copied_credit: tuple[Study, Layout]):
    study, layout = copied_credit
    path = layout.split("train")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(ResultsError, match=r"it lacks \d+ prompts that were trained on") as caught:
        build_credit(gather(study, layout, SETTINGS), 0.95)
    assert f"-R {layout.data_sentinel}" in str(caught.value)


def test_the_same_files_give_the_same_page_and_their_texts_stay_text(credit_files: tuple[Study, Layout]):
    study, layout = credit_files
    first, again = (analyse(gather(study, layout, SETTINGS), SETTINGS.report) for _ in range(2))
    assert first.model_dump_json() == again.model_dump_json()
    page = render_page(first, assign_marks(first), [], layout.report)
    assert page == render_page(again, assign_marks(again), [], layout.report)
    assert "&lt;script&gt;" in page.split('<section id="credit"')[1].split("</section>")[0]
    assert "<script" not in page
    assert {job.signals_share for job in first.cost if job.policy.startswith("runs/base")} == {None}
    assert {job.signals_share for job in first.cost if job.policy.startswith("runs/dr_grpo")} == {0.25}
