"""The tables as they are read: columns, texts and the words that say how to read them."""

from collections.abc import Iterable, Mapping, Sequence

from advtrain.graph.timings import SECTIONS
from advtrain.published.claims import QUANTITIES, Quantity
from advtrain.published.protocols import Departure
from advtrain.published.registry import GRADES, Number
from advtrain.reporting import published_wording, verdicts, wording
from advtrain.reporting.audits import AUDITS, NOISE, AuditRow, audits_data
from advtrain.reporting.certified import CertifiedRow, certified_data
from advtrain.reporting.claims import RULE as CLAIM_RULE
from advtrain.reporting.claims import ClaimRow, claims_data
from advtrain.reporting.comparisons import LEVEL, ComparisonRow, Pair, comparisons_data
from advtrain.reporting.costs import CostRow, costs_data
from advtrain.reporting.curve import CurvePoint, curve_data
from advtrain.reporting.findings import Finding
from advtrain.reporting.flags import Flag, merge
from advtrain.reporting.measure import Measured, Unit
from advtrain.reporting.methods import MethodRow, methods_data
from advtrain.reporting.overlap import OverlapRow, overlap_data
from advtrain.reporting.published import RULE as PUBLISHED_RULE
from advtrain.reporting.published import PublishedRow, published_data
from advtrain.reporting.results import ResultRow, results_data
from advtrain.reporting.selection import SelectionRow, selection_data
from advtrain.reporting.sheet import Cell, Column, Sheet
from advtrain.reporting.statistics import Difference, Estimate
from advtrain.reporting.study import StudyInfo
from advtrain.reporting.transformed import (
    TransformedRow,
    transformations,
    transformed_data,
)

MEANS = (
    "Mean over seeds ± sample standard deviation; in brackets the 95 % Wilson interval with as "
    "many trials as distinct examples."
)
DIFFERENCES = (
    "Differences are in points, paired by example, with the 95 % interval of Agresti and Min "
    "(2005); their ± is over seeds, where both have several."
)


def results_sheet(rows: Sequence[ResultRow], info: StudyInfo) -> Sheet:
    """Lay out the results: one row per method, training budget and evaluation budget."""
    shown = [row for row in rows if row.shown]
    several_norms = len({row.norm for row in shown if row.norm}) > 1
    several_weights = len({row.weights for row in shown}) > 1
    columns = [Column("method", "name"), Column("trained at ε")]
    columns += [Column("norm", "name")] * several_norms + [Column("attacked at ε")]
    columns += [Column("weights", "name")] * several_weights
    elsewhere = transformations([row.unit for row in rows])
    attacks = [attack for attack in info["attacks"] if attack not in elsewhere]
    columns += [Column("clean, %"), *(Column(f"{attack}, %") for attack in attacks)]
    columns += [Column("worst case, %"), Column("examples"), Column("seeds")]
    columns += [Column("forward passes"), Column("backward passes"), Column("flags", "notes")]
    laid = []
    for row in shown:
        cells = [Cell(row.unit.method), Cell(wording.budget(row.unit.epsilon))]
        cells += [Cell(row.norm or wording.NOTHING)] * several_norms
        cells += [Cell(wording.budget(row.epsilon))]
        cells += [Cell(row.weights)] * several_weights
        cells += [_accuracy(row.unit, row.cells, row.clean)]
        cells += [
            _accuracy(row.unit, row.cells, found, row.examples)
            for found in (*(row.robust[attack] for attack in attacks), row.worst)
        ]
        cells += [Cell(wording.NOTHING if row.examples is None else str(row.examples))]
        cells += [Cell(wording.seeds(len(row.cells), len(row.unit.seeds)))]
        cells += [Cell(wording.passes(row.forward)), Cell(wording.passes(row.backward))]
        cells += [_notes(row.flags)]
        laid.append(tuple(cells))
    norms = ", ".join(sorted({row.norm for row in rows if row.norm})) or "none"
    return Sheet(
        title=f"{info['title']}: accuracy on clean and on attacked images",
        reading=(
            f"Norm: {norms}; ε in pixel units of [0, 1].{_weights(rows, shown)} An attack's column "
            f"is the share of test examples whose prediction at the point that the attack returned "
            f"is the label; the worst case counts an example only if its clean prediction and that "
            f"of every attack are, over the examples that every attack was run on. {MEANS} "
            f"Passes: of the whole training, per training example.{_sources(info)}"
        ),
        columns=tuple(columns),
        rows=tuple(laid),
        data=results_data(rows, info["attacks"]),
    )


def _sources(info: StudyInfo) -> str:
    """Say on whose network an attack is crafted, if not on the attacked one."""
    return "".join(
        f" {attack}: crafted on the network of {method} of the same seed; for {method} itself it "
        f"is an attack on its own."
        for attack, method in info["attack_sources"].items()
    )


def methods_sheet(rows: Sequence[MethodRow], info: StudyInfo, source: str) -> Sheet:
    """Lay out the methods: one row per method and budget, beside natural training.

    Args:
        rows: what the table shows.
        info: the study.
        source: where the survey's words come from.
    """
    surveyed = any(row.variant for row in rows)
    columns = [Column("method", "name"), Column("trained at ε"), Column("attacked at ε")]
    columns += [Column("clean, %"), Column("accuracy cost, points")]
    columns += [Column("worst case, %"), Column("robustness gain, points")]
    columns += [Column("passes, × natural"), Column("seeds")]
    if surveyed:
        columns += [Column(f"survey: {what}", "name") for what in ("name", *QUANTITIES)]
    columns += [Column("flags", "notes")]
    laid = []
    for row in rows:
        result = row.result
        cells = [Cell(row.unit.method), Cell(wording.budget(row.unit.epsilon))]
        cells += [Cell(wording.budget(result.epsilon))]
        cells += [_accuracy(row.unit, result.cells, result.clean)]
        cells += [_difference(row.unit, result.cells, row.cost)]
        cells += [_accuracy(row.unit, result.cells, result.worst, result.examples)]
        cells += [_difference(row.unit, result.cells, row.gain)]
        cells += [Cell(wording.ratio(row.relative))]
        cells += [Cell(wording.seeds(len(result.cells), len(row.unit.seeds)))]
        if surveyed:
            cells += [Cell(row.variant.name if row.variant else wording.NOTHING)]
            cells += [_claim(row, quantity) for quantity in QUANTITIES]
        said = [verdict.words(wording.points) for verdict in row.verdicts]
        # Of the best epoch, the selection table speaks.
        flags = [flag for flag in result.flags if flag.kind != "robust overfitting"]
        cells += [_notes(flags, said)]
        laid.append(tuple(cells))
    reading = (
        f"Accuracy cost: clean accuracy of natural training minus that of the method. Robustness "
        f"gain: its worst-case accuracy minus that of natural training at the same budget. {MEANS} "
        f"{DIFFERENCES} Passes: forward and backward, of the whole training."
    )
    if surveyed:
        reading += (
            f" Survey: {source}. Of several methods that are a variant, the first whose recipe "
            f"adds nothing speaks for it (smoothing, averaging, extra data, policy, cutout, "
            f"precision); where all add something, the first, and its verdicts name it. "
            f"{verdicts.RULE}"
        )
    return Sheet(
        title=f"{info['title']}: what each method costs and gains against natural training",
        reading=reading,
        columns=tuple(columns),
        rows=tuple(laid),
        data=methods_data(rows),
    )


def selection_sheet(rows: Sequence[SelectionRow], info: StudyInfo) -> Sheet:
    """Lay out the selection: one row per method, training budget and evaluation budget."""
    columns = (
        *(Column("method", "name"), Column("trained at ε"), Column("attacked at ε")),
        *(Column("best epoch"), Column("clean: last, %"), Column("clean: best, %")),
        *(Column("worst case: last, %"), Column("worst case: best, %")),
        *(Column("gap, points"), Column("seeds"), Column("flags", "notes")),
    )
    laid = tuple(
        (
            Cell(row.unit.method),
            Cell(wording.budget(row.unit.epsilon)),
            Cell(wording.budget(row.epsilon)),
            Cell(wording.epochs([c.best_epoch for c in row.cells], [c.epochs for c in row.cells])),
            *(_accuracy(row.unit, row.cells, found) for found in (*row.clean, *row.worst)),
            _gap(row),
            Cell(wording.seeds(len(row.cells), len(row.unit.seeds))),
            _notes(row.flags),
        )
        for row in rows
    )
    reading = (
        f"Last: the weights after the last epoch. Best: those after the epoch with the highest "
        f"validation accuracy, under the validation's attack where the method trains at a budget. "
        f"Gap: worst-case accuracy of the best minus that of the last; it is flagged as robust "
        f"overfitting (Rice et al., 2020) where the lower end of its interval exceeds 1 point in "
        f"a seed. Same weights: the best epoch is the last in every seed, so that the gap is 0 and "
        f"has no interval (in the files, both ends are 0). The worst case here is over the attacks "
        f"that both weights met. {MEANS} {DIFFERENCES}"
        if rows
        else "This study attacked one kind of weights alone, so there is nothing to compare."
    )
    return Sheet(
        title=f"{info['title']}: weights of the best epoch against those of the last",
        reading=reading,
        columns=columns,
        rows=laid,
        data=selection_data(rows),
    )


def certified_sheet(rows: Sequence[CertifiedRow], info: StudyInfo) -> Sheet:
    """Lay out the certified accuracies: one row per method, training budget and radius."""
    columns = (
        *(Column("method", "name"), Column("trained at ε"), Column("certificate", "name")),
        *(Column("norm", "name"), Column("within"), Column("clean, %"), Column("certified, %")),
        *(Column("abstained, %"), Column("worst case, %"), Column("examples"), Column("seeds")),
        Column("flags", "notes"),
    )
    laid = tuple(
        (
            Cell(row.unit.method),
            Cell(wording.budget(row.unit.epsilon)),
            Cell(row.certificate),
            Cell(row.norm),
            Cell(wording.budget(row.epsilon if row.radius is None else row.radius)),
            *(
                _accuracy(row.unit, row.cells, found)
                for found in (row.clean, row.certified, row.abstained, row.robust)
            ),
            Cell(wording.NOTHING if row.clean is None else str(row.clean.examples)),
            Cell(wording.seeds(len(row.cells), len(row.unit.seeds))),
            _notes(row.flags),
        )
        for row in rows
    )
    reading = (
        f"Certified: the share of test examples that the certified predictor classifies right, "
        f"with a proof that no perturbation within the radius of that norm (pixel units of [0, 1]) "
        f"changes it. Clean and abstained are of the same predictor. Worst case: what the study's "
        f"attacks leave of the same weights and examples at that budget, an upper bound of what "
        f"any certificate can prove; none where the certified predictor is another than the "
        f"attacked one (randomised smoothing). Weights of the last epoch. {MEANS}"
        if rows
        else "This study has no certificates."
    )
    return Sheet(
        title=f"{info['title']}: certified accuracy",
        reading=reading,
        columns=columns,
        rows=laid,
        data=certified_data(rows),
    )


def audits_sheet(rows: Sequence[AuditRow], info: StudyInfo) -> Sheet:
    """Lay out the audits: one row per method and training budget, the seeds in one."""
    columns = (
        *(Column("method", "name"), Column("trained at ε")),
        *(Column(name) for name in AUDITS),
        *(Column("seeds"), Column("flags", "notes")),
    )
    units: dict[str, list[AuditRow]] = {}
    for row in rows:
        units.setdefault(row.unit.name, []).append(row)
    laid = tuple(
        (
            Cell(seeds[0].unit.method),
            Cell(wording.budget(seeds[0].unit.epsilon)),
            *(_audited(name, seeds) for name in AUDITS),
            Cell(wording.seeds(len(seeds), len(seeds[0].unit.seeds))),
            _notes(_failed(seeds)),
        )
        for seeds in units.values()
    )
    rules = "; ".join(f"{name}: {audit.rule}" for name, audit in AUDITS.items())
    reading = (
        f"What would show that an attack was too weak, or that a model hides its gradients from "
        f"it. An audit fails if it does so in one of the seeds; {wording.NOTHING}: it applies to "
        f"none. {NOISE} {rules[0].upper()}{rules[1:]}."
        if rows
        else "This study has no cell to audit."
    )
    return Sheet(
        title=f"{info['title']}: audits of the attacks",
        reading=reading,
        columns=columns,
        rows=laid,
        data=audits_data(rows),
    )


def comparisons_sheet(
    rows: Sequence[ComparisonRow], compared: Sequence[Pair], info: StudyInfo
) -> Sheet:
    """Lay out the comparisons: one row per method and evaluation budget; the pairs as data."""
    columns = (
        *(Column("method", "name"), Column("trained at ε"), Column("attacked at ε")),
        *(Column("worst case, %"), Column("examples"), Column("better than", "name")),
        *(Column("not told apart from", "name"), Column("worse than", "name")),
    )
    laid = tuple(
        (
            Cell(row.unit.method),
            Cell(wording.budget(row.unit.epsilon)),
            Cell(wording.budget(row.epsilon)),
            _accuracy(row.unit, row.unit.cells, row.worst),
            Cell(str(row.worst.examples) if row.worst else wording.NOTHING),
            *(_units(units, row.epsilon) for units in (row.better, row.same, row.worse)),
        )
        for row in rows
    )
    reading = (
        f"Worst case over the attacks, compared example by example: McNemar's exact test of the "
        f"examples that one of two alone withstood, in each seed that both have; the least certain "
        f"seed counts, and the seeds have to agree. Better and worse are said at a level of "
        f"{LEVEL:.2f} over all pairs of one budget together (Holm's correction). The test is about "
        f"these trained networks; how much a method varies with its seed is the spread in the "
        f"results."
        if rows
        else "This study has no two methods that were attacked at one budget."
    )
    return Sheet(
        title=f"{info['title']}: which method withstood more",
        reading=reading,
        columns=columns,
        rows=laid,
        data=comparisons_data(compared),
    )


def overlap_sheet(rows: Sequence[OverlapRow], info: StudyInfo) -> Sheet:
    """Lay out the overlap of the attacks: one row per method and evaluation budget."""
    names = tuple(dict.fromkeys(one.attack for row in rows for one in row.broken))
    columns = (
        *(Column("method", "name"), Column("trained at ε"), Column("attacked at ε")),
        *(Column("broken by any, %"), *(Column(f"{name}, %") for name in names)),
        Column("examples"),
    )
    laid = []
    for row in rows:
        found = {one.attack: one for one in row.broken}
        cells = [Cell(row.unit.method), Cell(wording.budget(row.unit.epsilon))]
        cells += [Cell(wording.budget(row.epsilon)), Cell(wording.percent(row.any, row.examples))]
        for name in names:
            one = found.get(name)
            if one is None:
                # A stage without a column of its own broke nothing here.
                ran = name.partition(": ")[0] in found
                cells.append(Cell(wording.percent(0, row.examples) if ran else wording.NOTHING))
                continue
            detail = "" if one.alone is None else f"{one.alone} alone"
            cells.append(Cell(wording.percent(one.share, row.examples), detail))
        cells.append(Cell(str(row.examples)))
        laid.append(tuple(cells))
    reading = (
        "Of the examples that are right without an attack and met every attack of the row, the "
        "share that each attack breaks, and how many it breaks alone. A column of a stage "
        "(autoattack: square) is what it broke of what the earlier stages had left; one that broke "
        "nothing anywhere has none. Seeds are added up."
        if rows
        else "This study has no cell that met two attacks at one budget."
    )
    return Sheet(
        title=f"{info['title']}: what each attack breaks",
        reading=reading,
        columns=columns,
        rows=tuple(laid),
        data=overlap_data(rows),
    )


def transformed_sheet(rows: Sequence[TransformedRow], info: StudyInfo) -> Sheet:
    """Lay out the accuracy on transformed images: one row per method and training budget."""
    names = tuple(rows[0].accuracy) if rows else ()
    columns = (
        *(Column("method", "name"), Column("trained at ε"), Column("clean, %")),
        *(Column(f"{name}, %") for name in names),
        *(Column("examples"), Column("seeds")),
    )
    laid = tuple(
        (
            Cell(row.unit.method),
            Cell(wording.budget(row.unit.epsilon)),
            _accuracy(row.unit, row.cells, row.clean),
            *(
                _accuracy(
                    *(row.unit, row.cells, row.accuracy[name]),
                    row.clean.examples if row.clean else None,
                )
                for name in names
            ),
            Cell(str(row.clean.examples) if row.clean else wording.NOTHING),
            Cell(wording.seeds(len(row.cells), len(row.unit.seeds))),
        )
        for row in rows
    )
    reading = (
        f"Accuracy on images that were rotated, shifted or bent (the worst that the attack found), "
        f"or corrupted (no adversary: as it comes). No norm bounds these; the worst case of the "
        f"results does not count them. {MEANS}"
        if rows
        else "This study transforms no images."
    )
    return Sheet(
        title=f"{info['title']}: accuracy on transformed images",
        reading=reading,
        columns=columns,
        rows=laid,
        data=transformed_data(rows),
    )


def published_sheet(rows: Sequence[PublishedRow], info: StudyInfo) -> Sheet:
    """Lay out the published numbers: one row for each, with ours."""
    columns = (
        *(Column("method", "name"), Column("trained at ε"), Column("published as", "name")),
        *(Column("quantity", "name"), Column("published"), Column("ours")),
        *(Column("difference, points"), Column("noise, points"), Column("verdict", "name")),
        Column("notes", "notes"),
    )
    laid = tuple(
        (
            Cell(row.method),
            Cell(wording.budget(row.unit.epsilon if row.unit else None)),
            Cell(f"{row.number.work}: {row.number.row}", title=row.number.table),
            Cell(published_wording.quantity(row.number)),
            _published(row),
            _beside(row),
            Cell(_points(row.difference)),
            Cell(_points(row.noise)),
            _verdict(row),
            Cell(notes=_compared(row)),
        )
        for row in rows
    )
    reading = (
        f"Accuracies in percent, times in their unit, × is the ratio to natural training's. "
        f"{PUBLISHED_RULE} Below an accuracy of ours: the 95 % Wilson interval; below a verdict: "
        f"how many fields of our protocol the source does not state. They are in the CSV and "
        f"Parquet files, with the sources."
        if rows
        else "This study names no published training that its methods stand beside."
    )
    return Sheet(
        title=f"{info['title']}: published beside ours",
        reading=reading,
        columns=columns,
        rows=laid,
        data=published_data(rows),
    )


def claims_sheet(rows: Sequence[ClaimRow], info: StudyInfo) -> Sheet:
    """Lay out the claims: one row for each method that shows something of one."""
    columns = (
        *(Column("claim", "name"), Column("source", "name"), Column("claimed", "name")),
        *(Column("method", "name"), Column("trained at ε"), Column("against", "name")),
        *(Column("measured"), Column("noise"), Column("verdict", "name"), Column("notes", "notes")),
    )
    laid = tuple(
        (
            Cell(f"{row.claim.subject}: {published_wording.QUANTITIES[row.claim.quantity]}"),
            Cell(row.claim.work, title=f"{row.claim.source}; {GRADES[row.claim.grade]}"),
            Cell(published_wording.claimed(row.claim)),
            Cell(", ".join(unit.method for unit in row.units)),
            Cell(wording.budget(row.units[-1].epsilon)),
            Cell(row.against.method if row.against else wording.NOTHING),
            Cell(
                published_wording.measured(row.claim, row.evidence.value if row.evidence else None),
                origin=row.units[-1].name,
            ),
            Cell(published_wording.noise(row.claim, row.evidence.noise if row.evidence else None)),
            Cell(row.says),
            Cell(notes=_shown_of(row)),
        )
        for row in rows
    )
    return Sheet(
        title=f"{info['title']}: what is claimed, and what holds here",
        reading=(
            f"{CLAIM_RULE} The worst case is meant where no attack is named."
            if rows
            else "This study has the methods of no claim."
        ),
        columns=columns,
        rows=laid,
        data=claims_data(rows),
    )


def _points(share: float | None) -> str:
    return wording.NOTHING if share is None else wording.points(share, wording.FINE)


def _published(row: PublishedRow) -> Cell:
    """Show a published number, with where and how it was read."""
    number = row.number
    spread = (
        "" if number.spread is None else f" ± {published_wording.published(number, number.spread)}"
    )
    ratio = row.published_relative
    return Cell(
        f"{published_wording.published(number, number.value)}{spread}",
        detail="" if ratio is None else f"{wording.ratio(ratio)} ×",
        title=f"{number.source}; {GRADES[number.grade]}",
    )


def _beside(row: PublishedRow) -> Cell:
    """Show ours, or of a time the passes over natural training's."""
    if row.unit is None or (row.ours is None and row.relative is None):
        return Cell(wording.NOTHING)
    if row.ours is None:
        return Cell(f"{wording.ratio(row.relative)} × passes", origin=row.unit.name)
    return _accuracy(row.unit, row.cells, row.ours)


def _verdict(row: PublishedRow) -> Cell:
    """Show the verdict, and how much of our protocol the source leaves open."""
    if not row.unstated:
        return Cell(row.says)
    fields = ", ".join(one.replace("_", " ") for one in row.unstated)
    return Cell(row.says, f"{len(row.unstated)} not stated", f"not stated by the source: {fields}")


def _compared(row: PublishedRow) -> tuple[str, ...]:
    """Say in what the protocols differ, training and attack apart, and what else there is."""
    if row.timed:
        return tuple([row.number.note] if row.number.note else [])
    attack = [one for one in row.departures if one.field.startswith("attack")]
    training = [one for one in row.departures if one not in attack]
    notes = [_because("training", training), _because("evaluation", attack)]
    notes += [f"ours: {row.evaluation}"] if row.departures and row.evaluation else []
    notes += [row.number.note] if row.number.note else []
    notes += [flag.words(wording.percent_words) for flag in row.flags]
    return tuple(note for note in notes if note)


def _because(of: str, departures: Sequence[Departure]) -> str:
    said = "; ".join(str(one).removeprefix("attack.") for one in departures)
    return f"{of}, theirs → ours: {said}" if said else ""


def _shown_of(row: ClaimRow) -> tuple[str, ...]:
    """Quote a claim, and say what its verdict rests on."""
    notes = [f"“{row.claim.quote}”", row.claim.note or ""]
    notes += [row.evidence.words(wording.percent_words) if row.evidence else ""]
    notes += [_because("not comparable", row.departures)]
    notes += [flag.words(wording.percent_words) for flag in row.flags]
    return tuple(note for note in notes if note)


def costs_sheet(
    rows: Sequence[CostRow],
    info: StudyInfo,
    published: Mapping[str, Sequence[Number]] | None = None,
) -> Sheet:
    """Lay out the costs: one row per method and training budget.

    Args:
        rows: what the table shows.
        info: the study.
        published: the minutes that were published of each method's trainings.
    """
    minutes = published or {}
    certified = any(row.certify is not None for row in rows)
    measured = any(row.images is not None for row in rows)
    columns = (
        *(Column("method", "name"), Column("trained at ε"), Column("training, s")),
        *([Column("published, min")] * bool(minutes)),
        *(Column("× natural"), Column("forward passes"), Column("backward passes")),
        *([Column(f"{section}, %") for section in SECTIONS] * measured),
        *([Column("images/s"), Column("peak memory, MiB")] * measured),
        *(Column("all attacks, s"), *([Column("all certificates, s")] * certified)),
        *(Column("seeds"), Column("device", "name"), Column("flags", "notes")),
    )
    laid = tuple(
        (
            Cell(row.unit.method),
            Cell(wording.budget(row.unit.epsilon)),
            Cell(wording.seconds(row.seconds, row.spread)),
            *([_minutes(minutes.get(row.unit.method, ()))] * bool(minutes)),
            Cell(wording.ratio(row.ratio)),
            Cell(wording.passes(row.forward)),
            Cell(wording.passes(row.backward)),
            *([Cell(wording.share(row.shares[section])) for section in SECTIONS] * measured),
            *([Cell(wording.rate(row.images)), Cell(wording.mebibytes(row.memory))] * measured),
            Cell(wording.seconds(row.attack)),
            *([Cell(wording.seconds(row.certify))] * certified),
            Cell(wording.seeds(row.seeds, len(row.unit.seeds))),
            Cell(", ".join(row.devices) or wording.NOTHING),
            Cell(notes=row.causes),
        )
        for row in rows
    )
    evaluations = "attacks' and the certificates'" if certified else "attacks'"
    return Sheet(
        title=f"{info['title']}: costs",
        reading=(
            f"Wall-clock seconds as measured on the device named, with whatever ran beside: they "
            f"differ between runs. Training seconds include the validation after each epoch and "
            f"the start of the first. Mean over seeds ± sample standard deviation; the "
            f"{evaluations} seconds are the sum over all of a cell. Passes: of the whole training, "
            f"per training example; they do not depend on the device."
            + (
                " Percent: of a training's measured time that went into the minibatches (data), "
                "the inner maximisation (attack), the weight steps (update) and the validation; "
                "images/s counts the images that weight steps were taken on, without the "
                "validation; the memory is the GPU's, or the process's on a CPU."
                if measured
                else ""
            )
        ),
        columns=columns,
        rows=laid,
        data=costs_data(rows),
    )


def _minutes(numbers: Sequence[Number]) -> Cell:
    said = ", ".join(published_wording.published(one, one.value) for one in numbers)
    sources = "; ".join(dict.fromkeys(one.source for one in numbers))
    return Cell(said or wording.NOTHING, title=sources)


def curve_sheet(points: Sequence[CurvePoint], info: StudyInfo) -> Sheet:
    """Lay out the accuracy against the budget: one row per point."""
    attack = info["curve_attack"]
    shown = [point for point in points if point.shown]
    several_weights = len({point.weights for point in shown}) > 1
    columns = (
        *(Column("method", "name"), Column("trained at ε"), Column("attacked at ε")),
        *([Column("weights", "name")] * several_weights),
        *(Column(f"accuracy under {attack or 'no attack'}, %"), Column("seeds")),
        Column("flags", "notes"),
    )
    laid = tuple(
        (
            Cell(point.unit.method),
            Cell(wording.budget(point.unit.epsilon)),
            Cell(wording.budget(point.epsilon)),
            *([Cell(point.weights)] * several_weights),
            _accuracy(point.unit, point.unit.cells, point.accuracy),
            Cell(
                wording.seeds(point.accuracy.seeds if point.accuracy else 0, len(point.unit.seeds))
            ),
            Cell(notes=point.causes),
        )
        for point in shown
    )
    reading = (
        f"Accuracy at the points that {attack} returned; at ε = 0, on clean images."
        f"{_weights(points, shown)} Mean over seeds ± sample standard deviation; in brackets the "
        f"95 % Wilson interval."
        if attack
        else "The study names no attack for the accuracy against the budget."
    )
    return Sheet(
        title=f"{info['title']}: accuracy against the budget",
        reading=reading,
        columns=columns,
        rows=laid,
        data=curve_data(points, attack),
    )


def _units(units: Sequence[Unit], epsilon: float) -> Cell:
    """Name units, with their training budget where it is not the one attacked at."""
    names = [
        unit.method
        if unit.epsilon in (None, epsilon)
        else f"{unit.method} ({wording.budget(unit.epsilon)})"
        for unit in units
    ]
    return Cell(", ".join(names) or wording.NOTHING)


def _weights(
    rows: Sequence[ResultRow] | Sequence[CurvePoint],
    shown: Sequence[ResultRow] | Sequence[CurvePoint],
) -> str:
    """Say which weights a table shows, where that is not plain."""
    kinds = {row.weights for row in shown}
    if len(rows) > len(shown):
        said = " Shown are the weights of the last epoch; the table of the best epoch against the"
        return f"{said} last has the others, and the CSV and Parquet files have a row for each."
    return " The weights are those of the best epoch by validation." if kinds == {"best"} else ""


def _accuracy(
    unit: Unit, cells: Sequence[Measured], found: Estimate | None, examples: int | None = None
) -> Cell:
    """Show an accuracy; where it is over fewer than the row's examples, over how many."""
    if found is None:
        return Cell(wording.NOTHING)
    low, high = (wording.percent(end, found.examples) for end in (found.low, found.high))
    title = f"95 % interval {low} to {high} %, n = {found.examples}, "
    title += f"seeds: {wording.seeds(found.seeds, len(unit.seeds))}"
    detail = wording.interval(found)
    if found.seeds < len(cells):
        detail += f" {wording.seeds(found.seeds, len(unit.seeds))} seeds"
    if examples is not None and found.examples < examples:
        detail += f" n = {found.examples}"
    return Cell(wording.accuracy(found), detail, title, _origin(unit, cells))


def _difference(unit: Unit, cells: Sequence[Measured], found: Difference | None) -> Cell:
    if found is None:
        return Cell(wording.NOTHING)
    low, high = (wording.points(end, found.examples) for end in (found.low, found.high))
    title = f"95 % interval {low} to {high} points, n = {found.examples}"
    return Cell(wording.gap(found), wording.gap_interval(found), title, _origin(unit, cells))


def _gap(row: SelectionRow) -> Cell:
    shown = _difference(row.unit, row.cells, row.gap)
    if row.gap is None or not row.same_weights:
        return shown
    return Cell(
        wording.points(row.gap.mean, row.gap.examples),
        "same weights",
        "the best epoch is the last",
        shown.origin,
    )


def _audited(name: str, rows: Sequence[AuditRow]) -> Cell:
    """Show what one audit found of all seeds, with the evidence for the reader who asks."""
    found = [(row.cell.name.seed, row.findings[name]) for row in rows]
    failed = sum(finding.status == "fail" for _, finding in found)
    passed = any(finding.status == "pass" for _, finding in found)
    said: dict[str, list[str]] = {}
    for seed, finding in found:
        said.setdefault(finding.words(_signed), []).append(str(seed))
    evidence = [
        text if len(said) == 1 else f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: {text}"
        for text, seeds in said.items()
    ]
    return Cell(
        text="fail" if failed else "pass" if passed else wording.NOTHING,
        detail=f"{failed} of {len(found)}" if 0 < failed < len(found) else "",
        title="; ".join(evidence),
    )


def _signed(share: float) -> str:
    return wording.percent_words(share).replace("-", "−")


def _failed(rows: Sequence[AuditRow]) -> tuple[Flag, ...]:
    """Flag each audit that failed."""

    def flag(name: str, finding: Finding) -> Flag:
        return Flag("audit failed", f"{name}, {finding.text}", finding.values)

    flags = [
        (flag(name, finding), row.cell.name.seed)
        for row in rows
        for name, finding in row.findings.items()
        if finding.status == "fail"
    ]
    return merge(flags, rows[0].unit.seeds)


def _claim(row: MethodRow, quantity: Quantity) -> Cell:
    if row.variant is None:
        return Cell(wording.NOTHING)
    verdict = row.verdict(quantity)
    return Cell(row.variant.word(quantity), f"({verdict.says})" if verdict else "")


def _notes(flags: Iterable[Flag], said: Sequence[str] = ()) -> Cell:
    return Cell(notes=(*(flag.words(wording.percent_words) for flag in flags), *said))


def _origin(unit: Unit, cells: Sequence[Measured]) -> str:
    return cells[0].cell if len(cells) == 1 else unit.name
