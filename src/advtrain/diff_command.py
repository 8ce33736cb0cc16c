"""`advtrain diff`: which numbers moved between two commits, two params files or two folders."""

import argparse
import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advtrain.command_error import CommandError
from advtrain.evaluate_command import with_evaluations
from advtrain.graph.nodes import Graph, Node
from advtrain.graph.records import Manifest, read_manifest, write_json
from advtrain.graph.references import FACTS, study_of
from advtrain.graph.references import FOLDER as REFERENCES
from advtrain.graph.store import Store
from advtrain.params.reader import did_you_mean, read
from advtrain.params.schema import Params
from advtrain.reporting.changes import Version
from advtrain.reporting.moved import MovedRow, moved_rows, moved_sheet
from advtrain.reporting.moved_page import page, terminal
from advtrain.reporting.sheet import Sheet, markdown
from advtrain.reporting.study import UNKNOWN, StudyInfo, check_info
from advtrain.results.collect import Collected, collect, read_cell, read_collected
from advtrain.results.files import DamagedFileError, write_bytes

COLLECTED = "results/collect"
WORKSPACE = "the workspace"
EVALUATED = ("attack", "certify")
"""The stages, besides the trainings, that the compared numbers are computed by."""


NO_LOCK = "it has no dvc.lock, which `dvc repro` writes and a commit keeps with its results"


class DiffError(CommandError):
    """The two cannot be compared; the message says why and what to do."""


@dataclass(frozen=True)
class Source:
    """A side of the comparison.

    Attributes:
        name: what it is called.
        studies: the studies that it has results of.
        read: reads a study or a reference.
        references: the reference runs that it has (`digits@cpu`), which stand for a study that it
            has no results of.
        lacks: why it may have fewer than expected, for the errors; empty if it has all.
        here: it is the workspace: it can make the results that it lacks, so that its references
            stand for nothing and are compared only if they are asked for.
    """

    name: str
    studies: tuple[str, ...]
    read: Callable[[str], Version]
    references: tuple[str, ...] = ()
    lacks: str = ""
    here: bool = False

    def has(self, wanted: str) -> list[str]:
        """List what it has of a study, or of a reference: that, or what may be compared with it."""
        study = study_of(wanted)
        if wanted in self.references:
            return [wanted]
        if study in self.studies:
            return [study]
        if wanted != study or self.here:
            return []
        return [name for name in self.references if study_of(name) == study]

    def called(self, name: str) -> str:
        """Name it with the reference that is read of it, if that is not its name anyway."""
        return f"{self.name} ({name})" if "@" in name and name != self.name else self.name

    def stand_in(self, name: str) -> str:
        """Say of a reference why it stands for its study; empty of one that was named itself."""
        if "@" not in name or name == self.name:
            return ""
        if self.lacks:
            why = f"{self.name} has no dvc.lock"
        elif study_of(name) in self.studies:
            return ""  # it was asked for
        else:
            why = f"{self.name} has no results of {study_of(name)}"
        return f"{why}; its reference run {name} stands for {study_of(name)}. "


@dataclass(frozen=True)
class Moved:
    """What moved of one study, or of one of its references."""

    study: str
    rows: Sequence[MovedRow]
    sheet: Sheet


def compare(root: Path, here: Path, params: Params, arguments: argparse.Namespace) -> list[Moved]:
    """Compare the studies that both sides have.

    Args:
        root: the repository's top folder.
        here: the folder that the paths of the command line are relative to.
        params: the parameters of the workspace, for the order of methods and the titles.
        arguments: the command line.

    Returns:
        What moved, by study. A reference that both sides have alike is left out beside others, if
        it was not asked for.

    Raises:
        DiffError: if a side is not known or not here, or they have no study in common.
    """
    before, after = (
        _of_params(root, here, given) if arguments.params else _source(root, here, given)
        for given in (arguments.before, arguments.after)
    )
    wanted = arguments.only or _in_both(before, after)
    for study in wanted:
        unknown = "@" in study and study not in (*before.references, *after.references)
        for side, other in ((before, after), (after, before)):
            if unknown or not side.has(study):
                raise DiffError(_absent(side, other, study, params))
    if not wanted:
        for study in (*before.studies, *map(study_of, before.references)):
            if after.here and study in params.studies:
                raise DiffError(_absent(after, before, study, params))
        raise DiffError(
            f"no study is in both: {before.name} has rows of {_listed(before)}, "
            f"{after.name} of {_listed(after)}"
        )
    found: list[Moved] = []
    unmoved: list[Moved] = []
    for study in wanted:
        pairs = _pairs(before.has(study), after.has(study))
        for earlier, later in pairs:
            old, new = before.read(earlier), after.read(later)
            info = _info(root, params, study, (new.collected, old.collected))
            names, note, label = (before.name, after.name), "", earlier
            if earlier != later:
                names = before.called(earlier), after.called(later)
                note = before.stand_in(earlier) + after.stand_in(later)
                references = dict.fromkeys(name for name in (earlier, later) if "@" in name)
                label = study_of(study) if len(pairs) == 1 else " → ".join(references)
            elif "@" in earlier:
                info = {**info, "title": earlier}
            rows = moved_rows(old, new, info)
            sheet = moved_sheet(rows, *names, info, same=arguments.same)
            one = Moved(label, rows, replace(sheet, reading=note + sheet.reading))
            kept = arguments.only or (before.lacks and after.lacks) or "@" not in earlier
            differs = earlier != later or any(r.word != "same" or r.changes for r in rows)
            (found if kept or differs else unmoved).append(one)
    return found or unmoved


def _in_both(before: Source, after: Source) -> list[str]:
    """List the studies that both have results of, or a reference that stands for them."""
    studies = dict.fromkeys([*after.studies, *map(study_of, after.references)])
    return [study for study in studies if before.has(study) and after.has(study)]


def _pairs(old: Sequence[str], new: Sequence[str]) -> list[tuple[str, str]]:
    """Pair what two sides have of a study: references of one name, or all with all."""
    both = [(name, name) for name in new if name in old]
    return both or [(one, other) for one in old for other in new]


def _absent(side: Source, other: Source, study: str, params: Params) -> str:
    """Say that a side has nothing of a study, and what to do."""
    if side.here and study_of(study) in params.studies and other.has(study):
        return (
            f"{side.name} has no results of {study_of(study)} to compare with {other.name}; "
            f"`make reproduce STUDY={study_of(study)}` makes them"
        )
    return (
        f"{side.name} has no rows of the study {study}"
        f"{did_you_mean(study, (*side.studies, *side.references))}; it has {_listed(side)}"
    )


def write(found: Sequence[Moved], here: Path, arguments: argparse.Namespace) -> None:
    """Print what moved, and write the files that were asked for."""
    for one in found:
        print(terminal(one.sheet))
    sheets = [one.sheet for one in found]
    texts: dict[str, Callable[[], str]] = {
        "json": lambda: json.dumps(_data(found), indent=1) + "\n",
        "md": lambda: "\n".join(map(markdown, sheets)),
        "html": lambda: page(sheets),
    }
    for ending, text in texts.items():
        if given := getattr(arguments, ending):
            write_bytes(here / given, text().encode())


def beyond_noise(found: Sequence[Moved]) -> bool:
    """Whether a number moved beyond noise."""
    return any(row.word == "beyond noise" for one in found for row in one.rows)


def _data(found: Sequence[Moved]) -> dict[str, Any]:
    return {
        one.study: {"reading": one.sheet.reading, "rows": one.sheet.data.to_pylist()}
        for one in found
    }


def _source(root: Path, here: Path, given: str | None) -> Source:
    """Find a side: the workspace, a folder of collected rows, or what DVC recorded of a commit."""
    if given is None:
        return _workspace(root)
    folder = here / given
    if (folder / "outcomes.parquet").is_file():
        name, study = folder.name, study_of(folder.name)
        committed = name != study and (folder / FACTS).is_file()
        kept = ((), (name,)) if committed else ((study,), ())
        return Source(name, kept[0], lambda _: _reference(folder), kept[1])
    return _recorded(root, given)


def _workspace(root: Path) -> Source:
    committed = {path.parent.name: path.parent for path in (root / REFERENCES).glob(f"*/{FACTS}")}
    own = {path.parent.name: path.parent for path in (root / COLLECTED).glob("*/cells.parquet")}

    def version(study: str) -> Version:
        if study in committed:
            return replace(_reference(committed[study]), name=WORKSPACE)
        collected = _read(own[study], WORKSPACE)
        paths = {
            name: root / folder / "manifest.json" for name, folder in _folders(study, collected)
        }
        read = {name: read_manifest(path) for name, path in paths.items()}
        return Version(WORKSPACE, collected, {name: one for name, one in read.items() if one})

    return Source(WORKSPACE, tuple(sorted(own)), version, tuple(sorted(committed)), here=True)


def _reference(folder: Path) -> Version:
    """Read a folder of collected rows; a committed one says what it was computed with."""
    facts = folder / FACTS
    told = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {}
    return Version(folder.name, _read(folder, folder.name), environment=told.get("environment", {}))


def _recorded(root: Path, rev: str) -> Source:
    """Read what DVC recorded of a commit, from its cache or remote."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    try:
        files = DVCFileSystem(str(root), rev=rev)
        top = files.ls("/", detail=False)
    except DvcException as error:
        raise DiffError(
            f"{rev}: {error}; expected a commit, a branch, a tag, a DVC experiment or a folder of "
            "collected rows"
        ) from None
    absent = (OSError, DvcException, DataIndexDirError)
    locked = "dvc.lock" in [Path(path).name for path in top]
    found: dict[str, str] = {}
    for folder in (*([COLLECTED] if locked else []), REFERENCES):
        try:
            found |= {Path(path).name: path for path in files.ls(folder, detail=False)}
        except absent:
            if folder == COLLECTED:
                raise DiffError(_not_fetched(rev)) from None
    folders = sorted(name for name in found if files.isdir(found[name]))

    def version(study: str) -> Version:
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch) / study
            try:
                files.get(found[study], str(target), recursive=True)
            except absent:
                raise DiffError(_not_fetched(rev)) from None
            if (target / FACTS).is_file():
                return replace(_reference(target), name=rev)
            collected = _read(target, rev)
        manifests = {}
        for name, folder in _folders(study, collected):
            # Without manifests, the code that changed is told by its digest alone.
            with contextlib.suppress(*absent):
                manifests[name] = json.loads(files.read_text(f"{folder}/manifest.json"))
        return Version(rev, collected, manifests)

    lacks = "" if locked else NO_LOCK
    studies = tuple(name for name in folders if "@" not in name)
    references = tuple(name for name in folders if "@" in name)
    return Source(rev, studies, version, references, lacks)


def _not_fetched(rev: str) -> str:
    return (
        f"{rev}: the rows that its dvc.lock names are not in DVC's cache; `dvc fetch --all-commits "
        f"{COLLECTED}` brings them if they were pushed"
    )


def _folders(study: str, collected: Collected) -> Iterator[tuple[str, str]]:
    """Name each training and evaluation of collected rows, with the folder of its manifest."""
    for row in collected.cells.select(["cell", "evaluations"]).to_pylist():
        cell = row["cell"]
        yield cell, f"results/train/{study}/{cell}"
        for name, one in json.loads(row["evaluations"]).items():
            stage = "attack" if "attack" in one["params"] else "certify"
            yield f"{cell}/{name}", f"results/{stage}/{study}/{cell}/{name}"


def _of_params(root: Path, here: Path, given: str | None) -> Source:
    """Find the finished cells of a params file, in the workspace and the store."""
    path = here / given if given else root / "params.yaml"
    if not path.is_file():
        raise DiffError(f"there is no params file {path}")
    params = read(path)

    def version(study: str) -> Version:
        graph = Graph(replace(params, run=(study,)), root)
        with _laid_out(root, graph, study) as (scratch, manifests):
            records = [
                read_cell(scratch, study, cell, *names)
                for cell, names in _finished(manifests).items()
            ]
            if not records:
                raise DiffError(
                    f"{path}: no cell of the study {study} is finished, here or in the store; "
                    f"`snakemake --cores all` with these parameters makes them"
                )
            return Version(path.name, collect(study, records), manifests)

    return Source(given or WORKSPACE, params.run, version)


@contextlib.contextmanager
def _laid_out(root: Path, graph: Graph, study: str) -> Iterator[tuple[Path, dict[str, Manifest]]]:
    """Link the files of the finished trainings and evaluations as a results folder has them."""
    store = Store.of(root)
    with tempfile.TemporaryDirectory() as scratch:
        manifests: dict[str, Manifest] = {}
        for node in (one for stage in ("train", *EVALUATED) for one in graph.stage(stage)):
            if found := _kept(root, store, node):
                manifest, files = found
                for name, file in files.items():
                    target = Path(scratch) / node.folder / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.symlink_to(file)
                write_json(Path(scratch) / node.folder / "manifest.json", manifest)
                manifests[node.name.removeprefix(f"{study}/")] = manifest
        yield Path(scratch), manifests


def _kept(root: Path, store: Store, node: Node) -> tuple[Manifest, dict[str, Path]] | None:
    """Return a finished node's manifest and files, the weights aside; None if it is not kept."""
    own = {Path(path).name: root / path for path in node.outputs if path.startswith(node.folder)}
    manifest = read_manifest(node.manifest)
    if manifest and manifest["key"] == node.key and all(path.exists() for path in own.values()):
        return manifest, own
    entry = store.entry(node.stage, node.key)
    manifest = read_manifest(entry / "manifest.json")
    if manifest is None:
        return None
    kept = (entry / "files" / path for path in (*manifest["outputs"], *manifest["volatile"]))
    return manifest, {path.name: path.absolute() for path in kept if path.name in own}


def _finished(manifests: Mapping[str, Manifest]) -> dict[str, tuple[list[str], list[str]]]:
    """Return the attacks and the certificates of each finished training."""
    found: dict[str, tuple[list[str], list[str]]] = {
        name: ([], []) for name in manifests if "/" not in name
    }
    for name, manifest in manifests.items():
        cell, _, evaluation = name.partition("/")
        if evaluation and cell in found:
            found[cell][EVALUATED.index(manifest["stage"])].append(evaluation)
    return found


def _read(folder: Path, name: str) -> Collected:
    try:
        return read_collected(folder)
    except (FileNotFoundError, DamagedFileError) as error:
        raise DiffError(
            f"{name}: the rows cannot be read; they are damaged, or another version of advtrain "
            f"wrote them: {error}; `--study` compares other studies"
        ) from None


def _info(root: Path, params: Params, study: str, collected: Sequence[Collected]) -> StudyInfo:
    """Tell of a study what `params.yaml` says; of one that is not there, what the rows say."""
    params = with_evaluations(root, params)
    study = study_of(study)
    if study in params.studies:
        graph = Graph(replace(params, run=(study,)), root, names_only=True)
        shown = graph[f"tables:{study}"].params
        return check_info({**shown, "classes": UNKNOWN, "failures": []})
    methods = dict.fromkeys(m for one in collected for m in one.cells["label"].to_pylist())
    empty: dict[str, Any] = {name: {} for name in StudyInfo.__annotations__}
    told = {"name": study, "title": study, "methods": list(methods), "attacks": []}
    return check_info({**empty, **told, "classes": UNKNOWN, "failures": []})


def _listed(side: Source) -> str:
    names = ", ".join((*side.studies, *side.references)) or "none"
    return names + (f" ({side.lacks})" if side.lacks else "")
