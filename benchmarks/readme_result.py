"""Show a finished study in the README: python -m benchmarks.readme_result results/digits/report "11 minutes".

Copies the forest plots to docs/<study>/ and writes verdicts and main table between the README's two `result` marks.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

MARKS = ("<!-- result: written by benchmarks/readme_result.py -->\n", "<!-- end of result -->\n")
COLUMNS = ("choice_accuracy/sampled", "choice_accuracy/greedy", "pass_at_8/sampled", "think_answer_format/sampled")
FIGURES = ("forest_baseline.svg", "forest_start.svg")


def main() -> None:
    """Rewrite the block of the README from one report."""
    parser = argparse.ArgumentParser(description="Show a finished study in the README.")
    parser.add_argument("report", type=Path, help="folder of the report")
    parser.add_argument("time", help="how long the study took, and on what")
    args = parser.parse_args()
    content = json.loads((args.report / "report.json").read_text())
    docs = Path("docs") / content["study"]["id"]
    docs.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        shutil.copy(args.report / "figures" / name, docs / name)
    readme = Path("README.md")
    before, rest = readme.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text(before + MARKS[0] + block(content, docs, args.time) + MARKS[1] + after)


def block(content: dict[str, Any], docs: Path, time: str) -> str:
    """The result in Markdown: what ran, the verdicts, the forest plots and the main table."""
    study = content["study"]
    verdicts = "".join(f"- {verdict['sentence']}\n" for verdict in content["verdicts"] + content["gains"])
    plots = "\n".join(f"![Differences with their intervals]({docs / name})" for name in FIGURES)
    return (
        f"The first command's own result: {len(content['arms'])} arms x {len(study['seeds'])} seeds in {time}.\n\n"
        f"{verdicts}\n{plots}\n\n{table(content['tables']['main'])}\n"
        "Each cell: mean, interval, seeds x prompts. The warm start (SFT) is shared by all seeds: one policy has no "
        "seed variance to show.\n"
    )


def table(main: dict[str, Any]) -> str:
    """The main table with the columns that a first look needs."""
    places = [place for name in COLUMNS for place, column in enumerate(main["columns"]) if column["key"].endswith(name)]
    titles = [f"{main['columns'][place]['title']}, %" for place in places]
    lines = ["| policy | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(places)]
    for row in main["rows"]:
        lines.append(f"| {row['label']} | " + " | ".join(cell(row["cells"][place]) for place in places) + " |")
    return "\n".join(lines) + "\n"


def cell(estimate: dict[str, Any]) -> str:
    """`70.5 (64.4 to 76.6; 3 x 400)`, in percent."""
    mean, low, high = (f"{100 * estimate[end]:.1f}" for end in ("mean", "low", "high"))
    return f"**{mean}** ({low} to {high}; {estimate['num_seeds']} x {estimate['num_items']})"


if __name__ == "__main__":
    main()
