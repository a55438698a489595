"""The completion browser's files: which completions they hold, and that untrusted text stays data."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from rlassay.records import Media, PromptRow
from rlassay.report.completions.browser import Thumbnails, as_script, write_browser
from rlassay.report.completions.collect import PromptCompletions, sources
from rlassay.report.gather import Results, ResultsError, gather
from rlassay.report.run import build_content
from tests.report.conftest import SETTINGS
from tests.report.synthetic import HOSTILE


@pytest.fixture(scope="module")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The browser of the small study, with two steps of training."""
    folder = tmp_path_factory.mktemp("browser")
    write_browser(results, build_content(results, SETTINGS.report), folder, rollout_steps=2)
    return folder


def page_of(file: Path) -> dict:
    call = re.fullmatch(r'rlassayPage\("(\w+)", (\d+), (.*)\);\n', file.read_text(encoding="utf-8"), re.DOTALL)
    assert call is not None
    assert file.name == f"{call[1]}-{call[2]}.js"
    return json.loads(call[3])


def test_every_completion_of_every_policy_is_there_with_its_scores(results: Results, folder: Path):
    page = page_of(folder / "completions" / "test-0.js")
    assert [one["key"] for one in page["prompts"]] == sorted(results.prompts["test"])
    for prompt in page["prompts"]:
        # untrained, SFT and 4 arms x 3 seeds; each 4 samples and one greedy completion
        assert Counter(row for row, _, _ in prompt["policies"]) == {0: 1, 1: 1, 2: 3, 3: 3, 4: 3, 5: 3}
        assert {len(completions) for _, _, completions in prompt["policies"]} == {5}
    # The mean score over the file is the mean in the table: accuracy is the first metric.
    arm = [
        one
        for prompt in page["prompts"]
        for row, seed, each in prompt["policies"]
        if (row, seed) == (3, 2)
        for one in each
    ]
    sampled = [one[5][0] for one in arm if not one[1]]
    known = results.scores["runs/accuracy_only/seed2", "test"].mean_by_prompt("sampled", "choice_accuracy").mean()
    assert sum(sampled) / len(sampled) == pytest.approx(known)
    assert {one[6] for one in arm} == {None}


def test_a_clip_shows_its_film_strip(tmp_path: Path):
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "report").mkdir()
    Image.new("RGB", (120, 30)).save(tmp_path / "data" / "images" / "strip.png")
    clip = Media(kind="video", path="/clips/a.mp4", strip="images/strip.png", times=(0.0, 0.5, 1.0))
    image = Media(path="images/gone.png")
    prompt = PromptRow(prompt_id="p", question="Which?", answer="7", media=(image, clip))
    found = PromptCompletions(key="p", prompt=prompt)
    missing, strip = Thumbnails(tmp_path / "report").of(found)
    assert missing["uri"] == ""
    assert (strip["width"], strip["height"]) == (120, 30)
    # Lines between its frames make it another file than the strip, which the models read.
    assert str(strip["uri"]).startswith("data:image/jpeg;base64,")


def test_rollouts_of_evenly_spaced_steps_have_rewards_and_advantages(folder: Path):
    page = page_of(folder / "completions" / "training-0.js")
    assert {one["step"] for one in page["prompts"]} == {1, 10}
    one = page["prompts"][0]
    completions = [completion for _, _, each in one["policies"] for completion in each]
    assert all(completion[6] is not None for completion in completions)
    # the last score is the weighted sum of the raw ones before it
    assert {len(completion[5]) for completion in completions} == {4}


def test_the_index_knows_where_each_prompt_is_and_who_is_right(results: Results, folder: Path):
    text = (folder / "completions.html").read_text(encoding="utf-8")
    index = json.loads(re.search(r'<script type="application/json" id="index">(.*?)</script>', text)[1])
    assert [row["label"] for row in index["rows"]] == [row.label for row in results.rows.values()]
    assert index["reference"] == list(results.rows).index("base")
    test, training = index["sources"]
    assert (test["key"], training["key"]) == ("test", "training")
    assert test["metrics"][test["right"]] == "accuracy"
    key, question, page, shares = test["prompts"][0]
    scores = [
        results.scores[folder, "test"].mean_by_prompt("sampled", "choice_accuracy")[0]
        for folder in results.rows["base"].folders.values()
    ]
    assert shares[index["reference"]] == pytest.approx(sum(scores) / 3, abs=5e-4)
    assert (key, page) == (min(results.prompts["test"]), 0)
    assert question == results.prompts["test"][key].question


def test_hostile_completions_stay_data(folder: Path):
    assert HOSTILE not in (folder / "completions.html").read_text(encoding="utf-8")
    page = page_of(folder / "completions" / "test-0.js")
    assert HOSTILE in page["texts"]
    assert as_script("</script>\u2028") == '"\\u003c/script>\\u2028"'


def test_pages_of_an_earlier_report_are_removed(results: Results, tmp_path: Path):
    (tmp_path / "completions").mkdir()
    (tmp_path / "completions" / "old-7.js").write_text("")
    write_browser(results, build_content(results, SETTINGS.report), tmp_path, rollout_steps=0)
    assert [file.name for file in (tmp_path / "completions").iterdir()] == ["test-0.js"]


def test_a_completion_of_an_unknown_prompt_is_an_error(copied):
    study, layout = copied
    path = layout.completions("runs/base/seed1", "test")
    lines = path.read_text().splitlines()
    wrong = json.dumps(json.loads(lines[0]) | {"prompt_id": "feedbeef"})
    path.write_text("\n".join([wrong, *lines[1:]]) + "\n")
    with pytest.raises(ResultsError, match=r"completions\.jsonl is damaged.*prompt feedbeef"):
        list(sources(gather(study, layout, SETTINGS), 0))
