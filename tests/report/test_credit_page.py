"""Appearance of the credit viewer: shades, tints, images, switches; token credit on the page and in report.md."""

from pathlib import Path

import pytest
from PIL import Image

from rlassay.report.content import Content, DocumentWord, Heat, ReadDocument
from rlassay.report.credit_page import (
    Shading,
    by_frame,
    heat_paths,
    heat_top,
    numbers_of,
    shadings,
    switch_rules,
    weighted_text,
    word_classes,
)
from rlassay.report.figures import assign_marks
from rlassay.report.figures_style import Drawing
from rlassay.report.page import render_markdown, render_page
from rlassay.report.run import build_frames
from tests.report.fake_content import fake_content
from tests.report.fake_credit import HOSTILE, fake_credit


def _page(content: Content, folder: Path, *drawings: Drawing) -> str:
    (folder / "report").mkdir(exist_ok=True)
    return render_page(content, assign_marks(content), list(drawings), folder / "report")


@pytest.mark.parametrize(
    ("weight", "css_class"),
    [
        (0.0, "w-5"),
        (0.5, "w-3"),
        (0.9, "w-1"),
        (0.98, ""),
        (1.0, ""),
        (1.1, "w1"),
        (2.0, "w3"),
        (3.0, "w5"),
        (9.0, "w5"),
    ],
)
def test_weights_are_shaded_on_either_side_of_one(weight: float, css_class: str):
    assert Shading(signal="weight", top=3.0).css_class(weight) == css_class


@pytest.mark.parametrize(
    ("value", "css_class"), [(None, ""), (0.0, ""), (0.05, ""), (0.1, "p1"), (0.4, "p4"), (2.0, "p5")]
)
def test_other_signals_are_shaded_above_zero(value: float | None, css_class: str):
    assert Shading(signal="perception", top=0.5).css_class(value) == css_class


def test_all_arms_share_one_scale_per_measured_signal():
    scales = {scale.signal: scale.top for scale in shadings(fake_credit())}
    # Perception: 0, .4, .1 in six completions; their 95 % quantile is .4.
    assert scales == {"weight": 2.0, "perception": pytest.approx(0.4), "entropy": 0.25, "dominance": 8.0}
    base = fake_credit().scenes[0].completions[0]
    scene = fake_credit().scenes[0].model_copy(update={"completions": (base,)})
    only_weights = fake_credit().model_copy(update={"scenes": (scene,)})
    assert [(scale.signal, scale.top) for scale in shadings(only_weights)] == [("weight", 1.5)]


def test_a_word_has_one_class_per_signal_and_all_its_numbers():
    word = fake_credit().scenes[0].completions[1].words[1]
    assert word_classes(word, shadings(fake_credit())) == ' class="w5 p5 e5 d5"'
    assert numbers_of(word) == "1 token · weight 2.000 · perception 0.400 nats · entropy 0.250 nats · dominance 8.000"
    assert word_classes(word.model_copy(update={"weight": 1.0}), [Shading(signal="weight", top=2.0)]) == ""


def test_cells_of_one_tint_are_one_path():
    # Of 8 steps up to .1: 0 -> none, .05 -> 4, .1 -> 8; the two cells of the second row are one rectangle.
    heat = Heat(rows=2, cols=2, cells=(0.0, 0.05, 0.1, 0.1), total=0.25)
    assert heat_paths(heat, 0.1) == [(0.425, "M1 0h1v1h-1z"), (0.85, "M0 1h2v1h-2z")]
    assert heat_paths(Heat(rows=1, cols=1, cells=(0.0,), total=0.0), 0.0) == []
    assert heat_top(fake_credit().scenes[0]) == 0.1


def test_switches_hide_what_is_not_selected():
    rules = switch_rules(fake_content())
    assert ".viewer:has(#show-scene-1:checked) .scene:not(.scene-1){display:none}\n" in rules
    assert ".viewer:has(#show-arm-3:checked) .watched:not(.arm-3){display:none}\n" in rules
    assert rules.count("\n") == 2 + 4
    assert switch_rules(fake_content().model_copy(update={"credit": None})) == ""


def test_the_viewer_is_on_the_page(tmp_path: Path):
    Image.new("L", (16, 8), 90).save(tmp_path / "digit.png")
    text = _page(fake_content(), tmp_path)
    assert text.count('<image id="seen-0"') == 1  # one image, however many arms look at it
    assert text.count('<use href="#seen-0"/>') == 2 * (1 + 3)
    facts = "reward 1.500 · advantage −0.750 · scale 1.050 · completion 3 of 8 · 25.0 %"
    assert text.replace("&nbsp;", " ").count(facts) == 2
    assert text.count("… 17 words left out …") == 2
    assert '<span class="w5 p5 e5 d5" title="1 token · weight 2.000' in text
    assert '<g transform="scale(8.0000 4.0000)">' in text
    assert text.count("1.000 for every word") == 1
    assert text.count("1,200 completions of 3 seeds, 31 words") == 4
    assert text.count("<script") == 1  # that of the page


def with_document() -> Content:
    """The fake report with a document that one arm of the first scene has read."""
    content = fake_content()
    assert content.credit is not None
    words = (("", "Sort", 0.05), (" ", HOSTILE, 0.2), (" ", "rows", 0.0))
    read = ReadDocument(
        words=tuple(DocumentWord(before=before, text=text, attention=share) for before, text, share in words),
        omitted=7,
        total=0.25,
    )
    first, *others = content.credit.scenes
    base, *arms = first.completions
    scene = first.model_copy(update={"completions": (base.model_copy(update={"document": read}), *arms)})
    return content.model_copy(update={"credit": content.credit.model_copy(update={"scenes": (scene, *others)})})


def test_the_words_of_a_document_are_shaded_by_the_attention_on_them(tmp_path: Path):
    content = with_document()
    text = _page(content, tmp_path).replace("&nbsp;", " ")
    # Shares of the highest: a quarter rounds to the first of five shades.
    assert '<span class="a1" title="5.0 % of the attention">Sort</span>' in text
    assert '<span class="a5" title="20.0 % of the attention">&lt;script&gt;' in text
    assert '<span title="0.0 % of the attention">rows</span><span class="gap"> … 7 words left out</span>' in text
    assert text.count("Attention per word of the document") == text.count("What it rests on") == 1
    assert "· 25.0 % of the attention on the document" in text
    assert (
        "25.0 % of its attention is on the document, most on `<script>alert('inert?')</script>` (20.0 %), `Sort`"
        in (render_markdown(content, []))
    )
    frame = build_frames(content)["credit_documents"]
    assert frame[["arm", "text", "attention"]].iloc[0].tolist() == ["base", "Sort", 0.05]


def test_the_shares_of_frames_break_after_commas_alone():
    credit = fake_content().credit
    assert credit is not None
    scene = credit.scenes[0].model_copy(update={"times": (0.0, 2.5)})
    heat = next(one.heat for one in scene.completions if one.heat is not None)
    assert (
        by_frame(scene, heat.model_copy(update={"frames": (0.012, None)}))
        == "0\u00a0s\u00a01.2\u00a0%, 2.5\u00a0s\u00a0–"
    )


def test_a_missing_image_is_reported(tmp_path: Path):
    text = _page(fake_content(), tmp_path)
    assert text.count("The image ../digit.png is missing.") == 2
    assert "<use" not in text


def test_a_prompt_of_several_images_says_why_none_is_shown(tmp_path: Path):
    credit = fake_credit()
    scenes = tuple(
        scene.model_copy(
            update={
                "image": None,
                "num_media": 2,
                "completions": tuple(one.model_copy(update={"heat": None}) for one in scene.completions),
            }
        )
        for scene in credit.scenes
    )
    content = fake_content().model_copy(update={"credit": credit.model_copy(update={"scenes": scenes})})
    for text in (_page(content, tmp_path), render_markdown(content, [])):
        assert text.count("The prompt has 2 images or clips") == len(scenes)


@pytest.mark.parametrize("group", ["document", "attention", "layers", "selection", "scaling"])
def test_a_section_of_curves_only_says_why_there_are_no_words(tmp_path: Path, group: str):
    content = fake_content()
    curve = content.curves[0].model_copy(update={"group": group, "metric": "attention/all/mdi"})
    drawing = Drawing(name="curve", part=group, alt="MDI", svg="<svg>drawn</svg>")
    text = _page(content.model_copy(update={"credit": None, "curves": (*content.curves, curve)}), tmp_path, drawing)
    section = text.split('<section id="credit"')[1].split("</section>")[0]
    assert "the runs did not record single tokens" in section
    assert section.count("drawn") == 1
    assert 'class="viewer"' not in section


def test_without_credit_the_page_has_no_such_section(tmp_path: Path):
    content = fake_content().model_copy(update={"credit": None})
    text = _page(content, tmp_path)
    assert 'id="credit"' not in text
    assert "Measuring the signals" not in text
    assert "Token credit" not in render_markdown(content, [])
    assert not {"credit_words", "credit_scenes"} & set(build_frames(content))


def test_the_cost_of_signals_is_shown(tmp_path: Path):
    content = fake_content()
    jobs = tuple(
        cost.model_copy(update={"signals_share": share}) for cost, share in zip(content.cost, (0.126, 0.2), strict=True)
    )
    said = "Measuring the signals took 12.6 % to 20.0 % of the step time (2 runs)."
    assert said in _page(content.model_copy(update={"cost": jobs}), tmp_path)
    assert said in render_markdown(content.model_copy(update={"cost": jobs}), [])


def test_report_md_has_words_with_their_weights_and_the_same_table():
    text = render_markdown(fake_content(), [])
    completion = fake_credit().scenes[0].completions[1]
    assert weighted_text(completion) == (
        "<think>(0.000) seven(2.000)\n<script>alert('inert?')</script>(0.500) B(1.000)"
    )
    assert f"```text\n{weighted_text(completion)}\n```" in text
    assert " … 17 words left out …" in weighted_text(fake_credit().scenes[0].completions[3])
    assert "| accuracy only | 3 | 1,200 | `seven` **2.000** (1.900 to 2.100; 240 times); `<script>" in text
    assert "| accuracy + format | 3 | 1,200 | 1.000 for every word |  |" in text
    assert "### Step 30 (last): Which digit is larger?" in text


def test_tables_hold_every_word():
    frames = build_frames(fake_content())
    assert len(frames["credit_words"]) == 3 * 3
    assert len(frames["credit_scenes"]) == 2 * 4 * 4
    first = frames["credit_words"].iloc[0]
    assert (first["arm"], first["end"], first["word"], first["num_items"]) == ("accuracy_only", "most", "seven", 240)
