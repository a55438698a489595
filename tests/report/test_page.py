"""The page: it shows every fact, runs and loads nothing, and is the same bytes for the same content."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from rlassay.report.findings.records import ArmAtLook, Look, Rounds
from rlassay.report.page import SECTIONS, folded_sections, write_page
from rlassay.report.typeset import interval, number, printable, size
from tests.report.fake_content import ARMS, HOSTILE, collapses, fake_content, fake_partial
from tests.report.hostile_content import TEXTS, hostile_content

TAGS = {
    "script",
    *(
        "html",
        "head",
        "meta",
        "title",
        "link",
        "style",
        "script",
        "body",
        "div",
        "header",
        "main",
        "nav",
        "section",
        "article",
    ),
    *(
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "b",
        "ul",
        "ol",
        "li",
        "dl",
        "dt",
        "dd",
        "span",
        "strong",
        "code",
        "pre",
        "bdi",
        "a",
    ),
    *("table", "caption", "figcaption", "thead", "tbody", "tr", "th", "td", "figure", "img", "details", "summary"),
    *(
        "svg",
        "g",
        "defs",
        "path",
        "use",
        "text",
        "circle",
        "clippath",
        "rect",
        "image",
        "fieldset",
        "legend",
        "label",
        "input",
        "wbr",
    ),
}


LINKS = ("#", "data:", "tables/", "figures/", "completions.html", "report.", "../")
"""How a link may begin."""


class Page(HTMLParser):
    """Tags, attributes and text of a page, as a browser's tokenizer sees them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())


def written(content, folder):
    write_page(content, folder)
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Page(written(fake_content(), tmp_path_factory.mktemp("report")))


def test_every_section_is_there_in_order(page):
    headings = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    shown = [name for name in SECTIONS if name not in ("attribution", "rounds", "held_out")]
    assert headings == shown
    targets = [attributes["href"] for tag, attributes in page.elements if tag == "a" and "#" in attributes["href"]]
    folded = folded_sections(fake_content())
    assert targets == [f"#{name}-matter" if name in folded else f"#{name}" for name in shown]
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert {target[1:] for target in targets} <= ids


def test_the_looks_at_sequential_seeds_are_a_table(tmp_path):
    content = fake_content()
    arms = [one.arm for one in content.verdicts]
    words = [("better", False), ("inconclusive", True), *[("continue", False)] * len(arms)]
    looked = tuple(
        ArmAtLook(arm=one.arm, outcome=word, dropped=dropped, seeds=3, difference=one.difference)
        for one, (word, dropped) in zip(content.verdicts, words, strict=False)
    )
    look = Look(look=1, seeds=3, arms=looked, undecided=tuple(arms[2:]))
    facts = {"alpha": 0.05, "margin": 0.03, "looks": (3, 5), "drops": True, "runs": 9, "planned_runs": 20}
    rounds = Rounds(**facts, taken=(look,), sentence="Sequential seeds took 9 runs.")
    page = Page(written(content.model_copy(update={"rounds": rounds}), tmp_path))
    assert "rounds" in [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert "Sequential seeds took 9 runs." in page.text
    for words_shown in ("dropped", "looks at 3, 5 seeds", "a false verdict in at most 5 % of studies"):
        assert words_shown in page.text


def test_sections_that_the_arms_do_not_vary_are_folded():
    content = fake_content()  # its arms differ in rl.loss_type
    assert {"rewards", "credit", "length", "parsing", "cost"} <= set(folded_sections(content))
    assert not {"verdicts", "results", "design", "training", "examples"} & set(folded_sections(content))
    row = content.design.rows[0].model_copy(update={"key": "rewards.choice_accuracy.weight"})
    design = content.design.model_copy(update={"rows": (row,)})
    assert "rewards" not in folded_sections(content.model_copy(update={"design": design}))


def test_the_answer_comes_first_and_each_verdict_has_a_mark_and_its_numbers(page):
    content = fake_content()
    numbers = ("+8.1+3.2 to +13.0", "−12.0−18.0 to −6.0", "+0.4−3.0 to +3.8")
    marks = ("▲helps", "▼hurts", "○not resolved")
    assert page.text.index(content.headline) < page.text.index(marks[0])
    for verdict, mark, shown in zip(content.verdicts, marks, numbers, strict=True):
        said = f"{mark}{ARMS[verdict.arm]} {verdict.answer} {shown}Holm p = 0.020"
        assert said in page.text.replace(".+", ". +").replace(".−", ". −")


def test_every_number_has_its_interval_seeds_and_items(page):
    for table in fake_content().tables.values():
        for row in table.rows:
            sizes = {size(cell) for cell in row.cells}
            words = row.label + (sizes.pop() if len(sizes) == 1 else "")
            for cell, column in zip(row.cells, table.columns, strict=True):
                if column.metric == "pass_at_1":  # the same number as avg@k
                    continue
                one_seed = "†" if cell.covers == "items" else ""
                # if the sizes within a row differ, each cell has its own
                own = f" · {size(cell)}" if "×" not in words else ""
                assert f"{number(cell.mean, column.unit)}{interval(cell, column.unit)}{one_seed}{own}" in page.text
            assert words in page.text
    # main, length and parsing; of pass@k, whose first column main has as avg@8, the other columns alone
    assert page.text.count("Untrained model30.027.0 to 33.0† · 1 × 400") == 3
    assert page.text.count("accuracy + format3 × 40040.037.0 to 43.0") == 4


def test_design_marks_declared_differences_and_confounds(tmp_path):
    content = fake_content()
    confounded = content.design.rows[0].model_copy(update={"confounds": ("dr_grpo",)})
    design = content.design.model_copy(update={"rows": (confounded,), "sentence": "One confound."})
    text = written(content.model_copy(update={"design": design}), tmp_path)
    assert '<td class="confound"><code>&#34;dr_grpo&#34;</code> ⚠ not declared</td>' in text
    assert 'class="varied"' not in text
    assert text.count('<td class="same">') == 3


def test_logged_only_rewards_are_tagged(page):
    # four arms, each with soft_overlong at weight 0
    assert page.text.count("soft overlong penalty logged only") == 4
    assert "choice_accuracy logged only" not in page.text


def test_every_other_fact_is_on_the_page(page):
    content = fake_content()
    facts = [content.study.title, content.study.question, content.gains_note, content.design.sentence]
    facts += [f"{ARMS[gain.arm]} {gain.answer}" for gain in content.gains] + [item.command for item in content.commands]
    facts += [item.fingerprint for item in content.policies] + [example.reason for example in content.examples]
    facts += [shown.text for example in content.examples for shown in example.completions]
    facts += [
        "1 min 02 s",
        "92,000",
        "no image1",
        "duplicate: nearly the same prompt is in the split 'sft'4",
        "name: synthetic",
        "torch 2.13.0",
        "runs/base/seed1 at step 20",
    ]
    for fact in facts:
        assert fact in page.text


def test_completions_are_marked_right_or_wrong(page):
    # untrained and SFT score 0, the four arms score 1; the untrained one was truncated
    assert (page.text.count("✓ right"), page.text.count("✗ wrong")) == (4, 2)
    assert "Untrained model ✗ wrong9 tokens, truncated" in page.text.replace("wrong 9", "wrong9")
    assert "B 3 ← gold" in page.text


def test_tables_and_figures_are_accessible(page):
    for tag, attributes in page.elements:
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert ("html", {"lang": "en"}) in page.elements


def test_images_are_inlined_byte_for_byte(tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    Image.new("L", (16, 12), 200).save(tmp_path / "digit.png")
    content = fake_content()
    example = content.examples[0].model_copy(update={"images": ("../digit.png", "../gone.png")})
    page = Page(written(content.model_copy(update={"examples": (example,)}), folder))
    image = next(attributes for tag, attributes in page.elements if tag == "img")
    kind, encoded = image["src"].split(",", 1)
    assert kind == "data:image/png;base64"
    assert base64.b64decode(encoded) == (tmp_path / "digit.png").read_bytes()
    assert (image["width"], image["height"], image["class"]) == ("16", "12", "small")
    assert "The image ../gone.png is missing." in page.text


def test_policy_forbids_everything_but_this_style_this_script_and_inlined_images(tmp_path):
    text = written(fake_content(), tmp_path)
    style, script = (
        base64.b64encode(
            hashlib.sha256(re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1].encode()).digest()
        ).decode()
        for tag in ("style", "script")
    )
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text).group(1)
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert text.index("Content-Security-Policy") < text.index("<title>")


def test_hostile_text_is_inert(tmp_path):
    (tmp_path / "a").mkdir()
    page = Page(written(hostile_content(), tmp_path / "a"))
    assert {tag for tag, _ in page.elements} <= TAGS
    assert {tag for tag, _ in Page(written(fake_content(), tmp_path)).elements} == {
        tag for tag, _ in page.elements
    }  # no text became an element
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset", "action")]
        for name in ("href", "src", "xlink:href"):
            assert attributes.get(name, "#").startswith(LINKS), (
                tag,
                attributes,
            )
    shown = "".join(page.words)
    for text in TEXTS:
        assert printable(text) in shown


def test_fake_study_carries_a_script_that_stays_text(page):
    assert HOSTILE in page.text
    assert [tag for tag, _ in page.elements].count("script") == 1  # that of the page, which sorts tables


def test_same_content_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_page(hostile_content(), tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 8
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_partial_report_says_what_is_missing(tmp_path):
    page = Page(written(fake_partial(), tmp_path))
    assert "This report is partial. 1 file of the study is missing." in page.text
    assert "Dr. GRPO, seed 1 runs/dr_grpo/seed1/train.json" in page.text
    assert "◌one seed" in page.text
    assert "–no results" in page.text


def test_collapsed_runs_are_named_above_everything_else(tmp_path):
    page = Page(written(fake_content().model_copy(update={"collapses": collapses()}), tmp_path))
    assert "2 runs collapsed and ended early." in page.text
    assert "runs/base/seed2 , step 9 of 40: kl was nan, above max_kl" in page.text.replace("seed2,", "seed2 ,")
    assert page.text.index("collapsed and ended early") < page.text.index(fake_content().headline)


def test_a_study_of_one_arm_has_no_verdict_and_no_empty_section(tmp_path):
    content = fake_content()
    gone = {
        "verdicts": (),
        "gains": (),
        "curves": (),
        "rewards": (),
        "examples": (),
        "cost": (),
        "resumes": (),
        "credit": None,
    }
    tables = {name: table for name, table in content.tables.items() if name not in ("pass_at_k", "parsing")}
    page = Page(written(content.model_copy(update={**gone, "tables": tables}), tmp_path))
    assert "The baseline is the only arm" in page.text
    shown = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    empty = ("training", "rewards", "credit", "parsing", "examples", "cost")
    assert shown == [name for name in SECTIONS if name not in {*empty, "attribution", "rounds", "held_out"}]
