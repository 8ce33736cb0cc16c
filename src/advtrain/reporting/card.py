"""The model card of a cell: what its weights are for, come from, withstood, and do not promise."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from advtrain.graph.dotted import flatten, place
from advtrain.reporting import wording
from advtrain.reporting.audits import AuditRow, audit_rows
from advtrain.reporting.certified import CertifiedRow, certified_rows
from advtrain.reporting.flags import Flag
from advtrain.reporting.measure import (
    Evaluated,
    Measured,
    clean_runs,
    measure,
    read_cells,
    robust_runs,
    units,
)
from advtrain.reporting.results import ResultRow, result_rows
from advtrain.reporting.statistics import Estimate, estimate
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.results.collect import Collected, read_collected
from advtrain.results.files import write_bytes

Row = TypeVar("Row", ResultRow, CertifiedRow)

PURPOSE = (
    "Research on adversarial robustness: to compare training methods, to test attacks on, to "
    "continue training from, and to recompute the numbers below. The network takes images "
    "(N, C, H, W) in [0, 1] and returns logits; whatever normalisation it has is its first layer.",
    "Not for use where a wrong or manipulated answer does harm. Nothing here was measured on other "
    "images than this test split, or outside the norms and budgets below.",
)


@dataclass(frozen=True)
class Card:
    """What a model card is written from.

    Attributes:
        info: the study.
        cell: the cell as it was measured.
        row: the cell's row of the collected cells, with `params`, `upstream` and `evaluations`
            read.
        results: the rows of the results table for this cell alone.
        proofs: those of the certified table.
        audits: what the audits found.
    """

    info: StudyInfo
    cell: Measured
    row: Mapping[str, Any]
    results: tuple[ResultRow, ...]
    proofs: tuple[CertifiedRow, ...]
    audits: AuditRow

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What to know before the numbers, each once."""
        found = [flag for row in self.results for flag in row.flags]
        found += [flag for row in self.proofs for flag in row.flags]
        return tuple({flag.words(wording.percent_words): flag for flag in found}.values())

    @property
    def collapsed(self) -> bool:
        """The weights learned nothing, or stopped learning."""
        return any(flag.kind == "collapsed" for flag in self.flags)


def read_cards(collected: Collected, info: StudyInfo) -> dict[str, Card]:
    """Read what the cards of a study's cells are written from, by the cells' names."""
    grouped = units(measure(collected), info)
    alone = [
        replace(
            unit,
            cells=(cell,),
            absent=tuple(one for one in unit.absent if one.cell.seed == cell.name.seed),
        )
        for unit in grouped
        for cell in unit.cells
    ]
    results, proofs = _by_cell(result_rows(alone, info)), _by_cell(certified_rows(alone, info))
    audits = {row.cell.cell: row for row in audit_rows(grouped, info)}
    rows = read_cells(collected)
    return {
        cell.cell: Card(
            info=info,
            cell=cell,
            row=rows[cell.cell],
            results=tuple(results.get(cell.cell, ())),
            proofs=tuple(proofs.get(cell.cell, ())),
            audits=audits[cell.cell],
        )
        for unit in alone
        for cell in unit.cells
    }


def write_cards(collected_folder: Path, study_info: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the cards of a study.

    Args:
        collected_folder: the study's collected rows.
        study_info: the study in words, as in `study.StudyInfo`.
        out: the folder that gets `<cell>.md` for each cell.

    Returns:
        The files.
    """
    info = check_info(study_info)
    written = []
    for cell, card in read_cards(read_collected(collected_folder), info).items():
        write_bytes(out / f"{cell}.md", card_text(card).encode())
        written.append(out / f"{cell}.md")
    return written


def card_text(card: Card, loading: str = "") -> str:
    """Write a card in Markdown.

    Args:
        card: what it is written from.
        loading: how to load the weights that it lies beside; empty for a card alone.
    """
    row, info = card.row, card.info
    sections = [
        f"# {row['cell']} ({info['name']})",
        _summary(card),
        *(f"> **{flag.words(wording.percent_words)}**" for flag in card.flags),
        *([f"## Loading\n\n{loading}"] if loading else []),
        "## Intended use\n\n" + "\n\n".join(PURPOSE),
        "## Data\n\n" + _data(card),
        "## Training\n\n" + _training(card),
        "## Evaluation\n\n" + _evaluation(card),
        *(["## Certified\n\n" + _certified(card)] if card.cell.certificates else []),
        "## Audits\n\n" + _audits(card),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(card)),
        "## Lineage\n\n" + _lineage(card),
    ]
    return "\n\n".join(sections) + "\n"


def _by_cell(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.unit.cells:
            found.setdefault(row.unit.cells[0].cell, []).append(row)
    return found


def _summary(card: Card) -> str:
    row = card.row
    model, method = row["params"]["model"], row["params"]["method"]
    budget = (
        f"at {row['norm']} ε = {wording.budget(row['epsilon'])}"
        if row["norm"]
        else "without a budget"
    )
    return (
        f"`{model['module']}` for `{card.info['dataset']}`, trained by `{method['module']}` "
        f"{budget} with seed {row['seed']}, in the study “{card.info['title']}”."
    )


def _data(card: Card) -> str:
    row, info = card.row, card.info
    tried = max((len(one.example) for one in card.cell.evaluations), default=0)
    facts = {
        "data set": f"`{info['dataset']}`, {info['classes']} classes",
        "prepared data": f"`{row['data_hash']}`",
        "training examples": _known(row["examples"]),
        "test examples of the largest evaluation": str(tried or wording.NOTHING),
    }
    return _facts(facts)


def _training(card: Card) -> str:
    row = card.row
    ended = row["status"] + (f": {row['cause']}" if row["cause"] else "")
    facts = {
        "ended": ended,
        "epochs": _known(row["epochs"]),
        "best epoch by validation": _known(row["best_epoch"]),
        "forward and backward passes per training example": (
            f"{wording.passes(card.cell.forward)}, {wording.passes(card.cell.backward)}"
        ),
    }
    params = [
        (f"`{place(name, row['params'])}`", f"`{_plain(value)}`")
        for name, value in flatten(row["params"]).items()
        if value is not None and not name.endswith((".name", ".module"))
    ]
    return f"{_facts(facts)}\n\n{_table(('parameter', 'value'), params)}"


def _evaluation(card: Card) -> str:
    if not card.cell.evaluations:
        return "No attack was run on it, so no robustness is shown."
    rows: list[tuple[str, ...]] = []
    for weights in ("last", "best"):
        made = [one for one in card.cell.evaluations if one.weights == weights]
        if made:
            largest = max(made, key=lambda one: len(one.example))
            rows.append(("clean images", weights, *_share(estimate(clean_runs([largest]))), ""))
        rows += [_attacked(card, one) for one in made]
    worst = [
        (f"worst case, {_budget(row.norm, row.epsilon)}", row.weights, *_share(row.worst), "")
        for row in card.results
        if row.worst
    ]
    reading = (
        "Right: the share of test examples whose prediction at the point that the attack returned "
        "is the label; the worst case counts an example if its clean prediction and that of every "
        "attack are. In brackets the 95 % Wilson interval."
    )
    heads = ("attack", "weights", "right, %", "examples", "protocol")
    return f"{_table(heads, [*rows, *worst])}\n\n{reading}"


def _attacked(card: Card, one: Evaluated) -> tuple[str, ...]:
    protocol = card.row["evaluations"].get(one.name, {}).get("protocol", "")
    name = f"{one.attack}, {_budget(one.norm, one.epsilon)}"
    return (name, one.weights, *_share(estimate(robust_runs([one]))), protocol)


def _certified(card: Card) -> str:
    rows = [
        (
            row.certificate,
            _budget(row.norm, row.radius if row.epsilon is None else row.epsilon),
            *_share(row.certified),
        )
        for row in card.proofs
        if row.certified
    ]
    heads = ("certificate", "within", "certified, %", "examples")
    return _table(heads, rows) + (
        "\n\nCertified: the share of test examples that the certified predictor classifies right, "
        "with a proof that no perturbation within the radius changes that. Smoothing speaks of "
        "another predictor, the smoothed one."
    )


def _audits(card: Card) -> str:
    found = card.audits.findings
    failed = [name for name, finding in found.items() if finding.status == "fail"]
    said = f"Failed: {', '.join(failed)}." if failed else "None failed."
    rows = [
        (name, finding.status, finding.words(wording.percent_words))
        for name, finding in found.items()
        if finding.status != "not applicable"
    ]
    if not rows:
        return "None applies, so nothing was audited."
    return f"{said}\n\n{_table(('audit', 'found', 'evidence'), rows)}"


def _limits(card: Card) -> list[str]:
    made = card.cell.evaluations
    limits = [
        "A robust accuracy is what these attacks have left, an upper bound: a stronger attack can "
        "leave less.",
    ]
    balls = sorted({(one.norm, one.epsilon) for one in made if one.epsilon is not None})
    if balls:
        tried = ", ".join(_budget(norm, epsilon) for norm, epsilon in balls)
        limits.append(f"It was attacked at {tried}, and nowhere else.")
    most = max((len(one.example) for one in made), default=0)
    if few := [one for one in made if len(one.example) < most]:
        fewest = min(len(one.example) for one in few)
        names = ", ".join(dict.fromkeys(one.attack for one in few))
        limits.append(f"Not every attack met all examples: {names} met {fewest} or more of {most}.")
    if not card.cell.certificates:
        limits.append("Nothing about it is proven.")
    limits.append(
        f"It is one training with seed {card.row['seed']}; how much the method varies with the "
        f"seed stands in the study's tables where it has several."
    )
    return limits


def _lineage(card: Card) -> str:
    row, study = card.row, card.info["name"]
    last = {"last": row["checkpoint_hash"]}
    hashes = {one["weights"]: one["checkpoint"] for one in row["evaluations"].values()}
    facts = {
        "study, cell": f"`{study}`, `{row['cell']}`",
        "key": f"`{row['key']}`",
        **{
            f"{weights} weights (SHA-256)": f"`{found}`"
            for weights, found in sorted((hashes or last).items(), reverse=True)
        },
        "code digest": f"`{row['code_digest']}`",
        "MLflow": f"experiment `{row['mlflow_experiment']}`, run `{row['mlflow_run_name']}`",
        "recompute": f"`snakemake --cores all -- .pipeline/fresh/train/{study}/{row['cell']}`",
    }
    inputs = [
        (f"`{name}`", f"`{found.get('key', '')}`", f"`{found.get('digest', '')}`")
        for name, found in sorted(row["upstream"].items())
    ]
    return f"{_facts(facts)}\n\n{_table(('input', 'key', 'digest'), inputs)}"


def _share(found: Estimate | None) -> tuple[str, str]:
    """Write an accuracy with its interval, and over how many examples it is."""
    examples = str(found.examples) if found else wording.NOTHING
    return f"{wording.accuracy(found)} {wording.interval(found)}".strip(), examples


def _budget(norm: str | None, epsilon: float | None) -> str:
    return norm or wording.NOTHING if epsilon is None else f"{norm} {wording.budget(epsilon)}"


def _known(count: int | None) -> str:
    return wording.NOTHING if count is None else str(count)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _facts(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in facts.items())


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, [":---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in lines)
