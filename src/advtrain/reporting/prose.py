"""What the prose of a paper says of a study: what the rows show, and nothing that they do not.

Each fact names the numbers that it needs by the places of their rows (`results/trades@0.2/0.2`), so
that the prose prints numbers by name alone.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advtrain.reporting import wording
from advtrain.reporting.numbers import Numbers, row_name, trained
from advtrain.reporting.sheet import Sheet
from advtrain.reporting.study import StudyInfo
from advtrain.results.collect import Collected

Row = Mapping[str, Any]

SIDES = ("one", "other")
"""Of a compared pair."""


@dataclass(frozen=True)
class Leader:
    """The method that withstood most at one budget.

    Attributes:
        budget: in words.
        count: the name of the number of methods that met every attack there.
        images: the name of the number of images that its worst case is over.
        method: its label.
        place: of its row in the results.
        flags: the kinds of the warnings of its row.
        better: the methods that it withstands more than, by the paired test.
        same: those that it is not told apart from.
        worse: those that withstand more by the paired test, over the seeds and images of both.
        against: the place of its row beside natural training; empty without one.
        natural: the place of natural training's row; empty without one, or if it leads.
    """

    budget: str
    count: str
    images: str
    method: str
    place: str
    flags: tuple[str, ...]
    better: tuple[str, ...]
    same: tuple[str, ...]
    worse: tuple[str, ...]
    against: str
    natural: str


@dataclass(frozen=True)
class Facts:
    """What is said of a study.

    Attributes:
        leaders: one for each budget at which methods met every attack.
        flagged: the kinds of warnings, each with the trainings that it is about.
        cheapest: the method besides natural training with the fewest passes, and the place of its
            row; None if that is not known.
        dearest: likewise with the most.
        audits: the audits that failed, each with the cells.
        published: the verdicts on the published numbers, each with the name of its count.
        claims: likewise on the published claims.
        proven: some certificate was computed.
        single: whether all trainings have one seed; None if some have.
        fewer: the attacks that were run on a part of the examples.
    """

    leaders: tuple[Leader, ...] = ()
    flagged: tuple[tuple[str, tuple[str, ...]], ...] = ()
    cheapest: tuple[str, str] | None = None
    dearest: tuple[str, str] | None = None
    audits: tuple[tuple[str, tuple[str, ...]], ...] = ()
    published: tuple[tuple[str, str], ...] = ()
    claims: tuple[tuple[str, str], ...] = ()
    proven: bool = False
    single: bool | None = None
    fewer: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Some published number has ours beside it under the same protocol."""
        return any(verdict in ("reproduced", "deviates") for verdict, _ in self.published)


def study_facts(
    laid: Mapping[str, Sheet], collected: Collected, info: StudyInfo
) -> tuple[Facts, Numbers]:
    """Find what there is to say, and count what no table counts.

    Returns:
        The facts, and the counts by name.
    """
    rows = _shown(laid["results"].data.to_pylist())
    whole = [row for row in rows if row["worst_case_accuracy"] is not None]
    audits = [row for row in laid["audits"].data.to_pylist() if row["status"] in ("pass", "fail")]
    verdicts = {name: _verdicts(laid, name) for name in ("published", "claims")}
    passes = _passes(laid["methods"].data.to_pylist())
    leaders = tuple(_leaders(whole, laid, info))
    seeds = {row["seeds_planned"] for row in rows}
    counts = {
        "counts/cells": str(collected.cells.num_rows),
        "counts/methods": str(len({row["method"] for row in rows})),
        "counts/trainings": str(len({trained(row) for row in rows})),
        "counts/flagged": str(len({trained(row) for row in rows if row["flags"]})),
        "counts/seeds_least": str(min(seeds)),
        "counts/seeds_most": str(max(seeds)),
        "counts/classes": str(info["classes"]),
        "counts/chance": wording.percent(1 / info["classes"]),
        "counts/failures": str(len(info["failures"])),
        "counts/audits": str(len(audits)),
        "counts/audits_failed": str(sum(row["status"] == "fail" for row in audits)),
        **dict(_examples(rows, laid["results"])),
    }
    for budget, there in _by_budget(whole).items():
        counts[_count(budget)] = str(len(there))
    for one in leaders:
        counts[f"{one.count}/better"] = str(len(one.better))
        counts[f"{one.count}/same"] = str(len(one.same))
        if one.worse:
            counts[f"{one.count}/worse"] = str(len(one.worse))
    for name, found in verdicts.items():
        counts[f"counts/{name}"] = str(sum(found.values()))
        counts |= {_verdict(name, verdict): str(count) for verdict, count in found.items()}
    facts = Facts(
        leaders=leaders,
        flagged=_grouped(
            (flag.partition(":")[0], trained(row)) for row in rows for flag in row["flags"]
        ),
        cheapest=passes[0] if passes else None,
        dearest=passes[-1] if passes else None,
        audits=_grouped((row["audit"], row["cell"]) for row in audits if row["status"] == "fail"),
        published=tuple((one, _verdict("published", one)) for one in verdicts["published"]),
        claims=tuple((one, _verdict("claims", one)) for one in verdicts["claims"]),
        proven=bool(laid["certified"].rows),
        single=None if 1 in seeds and len(seeds) > 1 else seeds <= {1},
        fewer=_fewer(laid["results"], info),
    )
    return facts, counts


def _shown(rows: Sequence[Row]) -> list[Row]:
    """Keep the rows of the last weights, or the best where the last were not attacked."""
    last = {trained(row) for row in rows if row["weights"] == "last"}
    return [row for row in rows if row["weights"] == "last" or trained(row) not in last]


def _by_budget(rows: Sequence[Row]) -> dict[tuple[str, float], list[Row]]:
    """Group rows by evaluation budget: those trained at it, or at none."""
    found: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        if row["training_epsilon"] in (None, row["epsilon"]):
            found.setdefault((row["norm"], row["epsilon"]), []).append(row)
    return dict(sorted(found.items()))


def _leaders(rows: Sequence[Row], laid: Mapping[str, Sheet], info: StudyInfo) -> Iterator[Leader]:
    compared = laid["comparisons"].data.to_pylist()
    beside = {row_name("methods", row) for row in laid["methods"].data.to_pylist()}
    modules = info["method_modules"]
    for budget, there in _by_budget(rows).items():
        first = max(there, key=lambda row: row["worst_case_accuracy"])
        natural = [row for row in there if modules.get(row["method"]) == "natural"]
        pairs = [pair for pair in compared if (pair["norm"], pair["epsilon"]) == budget]
        better, same, worse = _apart(first, there, pairs)
        against = row_name("methods", first)
        yield Leader(
            budget=wording.budget(budget[1]),
            count=_count(budget),
            images=_images(first),
            method=first["method"],
            place=row_name("results", first),
            flags=tuple(dict.fromkeys(flag.partition(":")[0] for flag in first["flags"])),
            better=better,
            same=same,
            worse=worse,
            against=against if against in beside and natural else "",
            natural=row_name("results", natural[0]) if natural and natural[0] != first else "",
        )


def _apart(
    first: Row, there: Sequence[Row], pairs: Sequence[Row]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Say of which of the others a method is better, not told apart, and worse."""
    own, names = (first["method"], first["training_epsilon"]), {trained(row) for row in there}
    better, same, worse = list[str](), list[str](), list[str]()
    for pair in pairs:
        sides = [(pair[f"{side}_method"], pair[f"{side}_training_epsilon"]) for side in SIDES]
        if own in sides:
            side = sides.index(own)
            method, epsilon = sides[1 - side]
            if trained({"method": method, "training_epsilon": epsilon}) in names:
                winner = pair["better"]
                kind = same if winner is None else better if winner == SIDES[side] else worse
                kind.append(method)
    return tuple(better), tuple(same), tuple(worse)


def _count(budget: tuple[str, float]) -> str:
    return f"counts/{wording.threat_name(*budget)}"


def _images(row: Row) -> str:
    return f"{row_name('results', row)}/worst_case_examples"


def _examples(rows: Sequence[Row], results: Sheet) -> Iterator[tuple[str, str]]:
    """Count the images: the most of a row, and those of each worst case.

    The small print says where the worst case is over fewer than the row.
    """
    known = [row["examples"] for row in rows if row["examples"]]
    if known:
        yield "counts/examples_most", str(max(known))
    place = [column.title for column in results.columns].index("worst case, %")
    for row, cells in zip(rows, results.rows, strict=True):
        if row["worst_case_accuracy"] is not None:
            fewer = re.search(r"n = (\d+)", cells[place].detail)
            yield _images(row), fewer[1] if fewer else str(row["examples"])


def _verdicts(laid: Mapping[str, Sheet], name: str) -> Counter[str]:
    """Count the verdicts of a table, in their order there; none without the table."""
    rows = laid[name].data.to_pylist() if name in laid else []
    return Counter(row["verdict"] for row in rows)


def _verdict(name: str, verdict: str) -> str:
    return f"counts/{name}/{verdict.replace(' ', '_')}"


def _passes(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Order the methods by their passes against natural training's."""
    known = [row for row in rows if row["passes_over_natural"] is not None]
    ordered = sorted(known, key=lambda row: row["passes_over_natural"])
    return [(row["method"], row_name("methods", row)) for row in ordered]


def _fewer(results: Sheet, info: StudyInfo) -> tuple[str, ...]:
    """Name the attacks whose small print says that they met a part of the examples."""
    titles = [column.title for column in results.columns]
    found = []
    for attack in info["attacks"]:
        if (title := f"{attack}, %") in titles:
            place = titles.index(title)
            if any(" n = " in row[place].detail for row in results.rows):
                found.append(attack)
    return tuple(found)


def _grouped(found: Iterator[tuple[str, str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Group names by kind, each once, in the order that they come in."""
    kinds: dict[str, dict[str, None]] = {}
    for kind, name in found:
        kinds.setdefault(kind, {})[name] = None
    return tuple((kind, tuple(names)) for kind, names in kinds.items())
