"""`make performance`: write docs/performance.md from the records of the benchmarks.

    python benchmarks/performance.py [--folder reports/bench] [--check]

Of each section and device the newest record counts. Nothing is measured here, and no torch is
needed; the same records make the same bytes.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/performance.md"
KEPT = ROOT / "reports/bench"

GOALS: dict[str, tuple[str, str]] = {
    "P1": (
        "PGD-20 in float32 against the published packages",
        "The same images and the same starts; at least 99.5 % of the verdicts agree, and every "
        "difference is listed below with its margin. Peers: torchattacks, foolbox and the "
        "Adversarial Robustness Toolbox (ART), called as their documentation does.",
    ),
    "P2": (
        "PGD-20 in bfloat16, confirmed in float32",
        "As P1; what float32 does not confirm does not count.",
    ),
    "P3": (
        "A step of PGD-7 adversarial training",
        "The floor is seven input gradients and one plain training step of bare torch. The usual "
        "code calls `.backward()` on live weights while it crafts. Operations are those of "
        "convolutions and products, which no load of the machine moves.",
    ),
    "P4": (
        "A weight step of the other methods",
        "Its parts (input gradients, forward passes, forward and backward passes of the loss, the "
        "optimizer's step) were measured in bare torch in the same rounds. The price is the count "
        "of forward passes F in the literature, where an input gradient is 2 F and a plain step "
        "3 F.",
    ),
    "P5": (
        "AutoAttack, standard version",
        "Against torchattacks' ports of the four attacks at the official settings, until the last "
        "verdict.",
    ),
    "P6": (
        "PGD with restarts, and DeepFool",
        "Restarts cost what the examples that are left cost; DeepFool is batched.",
    ),
    "P7": (
        "What the pipeline costs beside the model",
        "Per cell, when nothing is to be done, and per row of results.",
    ),
    "P8": (
        "Cells beside each other",
        "One thread each. That a killed run repeats one stage of one cell at most, and that a "
        "resumed one ends with the same bits, is held by tests (`tests/training/test_resume.py`, "
        "`tests/pipeline/test_runs.py`).",
    ),
    "P9": (
        "No pass more than before",
        "Held by tests that count forward and backward passes (`tests/attacks/test_passes.py`, "
        "`tests/methods/test_costs.py`), not by a benchmark.",
    ),
    "P10": (
        "The report of a study of a thousand cells",
        "Made-up rows; tables, cards, figures, page, paper, metrics and plots, one after the other "
        "in one process, and the page opened in Chromium.",
    ),
    "G1": (
        "Attack steps on a GPU",
        "PreActResNet-18 in bfloat16 with channels last: CUDA graphs against eager calls at batch "
        "128, and the rate at 512 or more.",
    ),
    "G2": (
        "Whole trainings on a GPU",
        "PreActResNet-18 on 50 000 images of 32 x 32, compilation included.",
    ),
    "G3": (
        "AutoAttack on a GPU",
        "10 000 images in 8 minutes in TF32, and 1.5 times as fast as the official code.",
    ),
    "G4": (
        "A GPU that does not wait",
        "Data and augmentation take 2 % of a step at most, the device idles 5 % of an epoch at "
        "most, and three cells that share a GPU are 1.5 times as fast as one after the other.",
    ),
}
"""The goals by code: a title, and what is measured or where it is held."""

BY_TESTS = ("P9",)

ABOUT = ("processor", "gpu", "cores", "python", "cuda", "cudnn")
"""What tells one machine from another, beside the versions of its packages."""

NO_PACKAGE = (*ABOUT, "kernels", "bfloat16 instructions", "threads", "load")


@dataclass(frozen=True)
class Record:
    """The results of one section.

    Attributes:
        told: what the file holds, see `harness.measure`.
    """

    told: dict[str, Any]

    @property
    def name(self) -> str:
        """The suite, the section and the device."""
        return " ".join(self.told[part] for part in ("suite", "section", "device"))

    @property
    def machine(self) -> str:
        """What its times depend on, in words."""
        found = self.told["machine"]
        about = [f"{found[name]}" for name in ("processor", "gpu") if name in found]
        about += [f"{found['cores']} cores"]
        about += [f"{name} {found[name]}" for name in ABOUT[3:] if name in found]
        about += [f"{name} {found[name]}" for name in found if name not in NO_PACKAGE]
        return ", ".join(about)

    @property
    def order(self) -> tuple[int, str]:
        """Where it stands on the page: the GPU's after the CPU's."""
        return self.told["device"] != "cpu", self.name

    @property
    def load(self) -> str:
        """The load of the last minute before and after."""
        before, after = self.told["machine"]["load"][0], self.told["load after"][0]
        return f"{before:g}, {after:g}"


def records(folder: Path) -> list[Record]:
    """Read the newest full record of each section and device."""
    found: dict[str, Record] = {}
    for path in sorted(folder.glob("*.json")):
        record = Record(json.loads(path.read_text(encoding="utf-8")))
        older = found.get(record.name)
        if record.told["quick"] or (older and older.told["date"] >= record.told["date"]):
            continue
        found[record.name] = record
    return sorted(found.values(), key=lambda record: record.order)


def page(found: list[Record]) -> str:
    """The whole page."""
    machines = list(dict.fromkeys(record.machine for record in found))
    letters = {machine: chr(ord("A") + place) for place, machine in enumerate(machines)}
    parts = [
        "# Performance",
        "Made by `make performance` from the records in `reports/bench`, which `make bench` and "
        "`make bench-gpu` write; not edited by hand.",
        "Methods take turns, in another order each round, in one process and one thread. A figure "
        "is the median over the rounds, with the least and the largest; a ratio is taken within a "
        "round. Times are CPU time of the process (on a GPU the device's own), except where the "
        'pipeline, its report and whole trainings are timed by the clock. "It" is the row\'s own '
        "figure: *torchattacks / it* 2 means twice as fast as torchattacks.",
        "## Summary",
        markdown(summary(found)),
        *(part for code in GOALS for part in goal(code, found, letters)),
        "## All figures",
        *(part for record in found for part in section(record, letters)),
        "## Machines",
        "\n".join(f"- **{letter}**: {machine}" for machine, letter in letters.items()) or "None.",
    ]
    return "\n\n".join(parts) + "\n"


def of_goal(code: str, found: Iterable[Record]) -> Iterator[tuple[Record, dict[str, Any]]]:
    """The figures that belong to a goal."""
    for record in found:
        for one in record.told["goals"]:
            if one["name"].split()[0] == code:
                yield record, one


def summary(found: list[Record]) -> list[dict[str, str]]:
    """One row per goal."""
    rows = []
    for code, (title, _) in GOALS.items():
        judged = [is_met(one) for _, one in of_goal(code, found)]
        verdict = f"{sum(judged)} of {len(judged)} met" if judged else "not run"
        if code in BY_TESTS:
            verdict = "held by tests"
        dates = sorted({record.told["date"] for record, _ in of_goal(code, found)})
        rows.append({"goal": code, "": title, "figures": verdict, "measured": ", ".join(dates)})
    return rows


def goal(code: str, found: list[Record], letters: dict[str, str]) -> Iterator[str]:
    """The part of the page about one goal."""
    title, text = GOALS[code]
    yield f"## {code}. {title}"
    yield text
    rows = [
        {
            "figure": one["name"].removeprefix(code).strip(),
            "measured": show(one["measured"]),
            "goal": f"{'at most' if one['at_most'] else 'at least'} {one['bound']:g}",
            "": verdict(record, one),
            "machine": letters[record.machine],
        }
        for record, one in of_goal(code, found)
    ]
    if rows:
        yield markdown(rows)
    elif code not in BY_TESTS:
        yield "Not run."


def verdict(record: Record, one: dict[str, Any]) -> str:
    """Whether a goal was met, and why not where the machine is the reason."""
    if is_met(one):
        return "met"
    without = not record.told["machine"]["bfloat16 instructions"]
    if without and record.told["device"] == "cpu" and "bfloat16" in one["name"]:
        return "**missed** (this processor has no instructions for bfloat16)"
    return "**missed**"


def is_met(one: dict[str, Any]) -> bool:
    """Whether the number, or the median, is on the right side of its bound."""
    measured = one["measured"]
    value = measured[0] if isinstance(measured, list) else measured
    return bool(value <= one["bound"] if one["at_most"] else value >= one["bound"])


def section(record: Record, letters: dict[str, str]) -> Iterator[str]:
    """All rows and remarks of one section."""
    told = record.told
    yield f"### {told['title'].removesuffix('.')}"
    yield (
        f"`{record.name}`, {told['date']}, machine {letters[record.machine]}, load before and "
        f"after: {record.load}, commit {told['commit'][:12]}."
    )
    yield markdown([{name: show(one) for name, one in row.items()} for row in told["rows"]])
    if told["remarks"]:
        yield "\n".join(f"* {remark}" for remark in told["remarks"])


def show(value: object) -> str:
    """A number with three digits that count; a median with its range."""
    if isinstance(value, list | tuple) and len(value) == 3:
        middle, least, most = map(show, value)
        return f"{middle} ({least} to {most})"
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}" if digits <= 5 else f"{value:.2e}"


def markdown(rows: list[dict[str, str]]) -> str:
    """A table with the columns of all rows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([row.get(name, "") for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Write the page, or say whether it is the one that the records make."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=KEPT, help="of the records")
    parser.add_argument("--page", type=Path, default=PAGE, help="that is written")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if it would differ")
    given = parser.parse_args(argv)
    made = page(records(given.folder))
    if given.check:
        is_same = given.page.exists() and given.page.read_text(encoding="utf-8") == made
        print(f"{given.page}: {'up to date' if is_same else 'differs; run make performance'}")
        return 0 if is_same else 1
    given.page.write_text(made, encoding="utf-8")
    print(f"written: {given.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
