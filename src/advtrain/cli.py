"""The `advtrain` command: look at the workspace, keep it in order, evaluate and export a model."""

import argparse
import contextlib
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from advtrain import evaluate_command
from advtrain.command_error import CommandError
from advtrain.evaluate_command import with_evaluations
from advtrain.graph.costs import Rates, estimate
from advtrain.graph.forecast import basis_line, forecasts, hours_line
from advtrain.graph.nodes import STAGES, DuplicateCellError, Graph, Node
from advtrain.graph.records import byte_problems, read_manifest
from advtrain.graph.states import State, orphans, states, todo
from advtrain.graph.store import Store
from advtrain.params.reader import ParamsError, did_you_mean, read
from advtrain.params.schema import Params
from advtrain.tracking.live import duration, progress_line

GIB = 1 << 30


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (0 good, 1 found something, 2 cannot run)."""
    arguments = _parser().parse_args(argv)
    try:
        root = find_root(Path.cwd())
        _use_code_of(root)
        params = read(root / "params.yaml")
        if getattr(arguments, "study", None):
            params = _with_run(with_evaluations(root, params), arguments.study)
        code: int = arguments.function(root, params, arguments)
    except (ParamsError, DuplicateCellError, CommandError) as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # `advtrain status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="advtrain", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(
        name: str, function: object, text: str, *, studies: bool = True
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        if studies:
            command.add_argument(
                "--study", nargs="+", metavar="NAME", help="these studies, not those of `run`"
            )
        return command

    command = add("status", status, "what is fresh, stale (and why), missing, or an orphan")
    command.add_argument("--all", action="store_true", help="list the fresh ones too")
    command = add("plan", plan, "what a run would do, and its likely cost")
    command.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="jobs at once")
    add("verify", verify, "read every result and compare its hash with the manifest's")
    command = add("prune", prune, "remove orphans, old snapshots, and what the store has too much")
    command.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    command.add_argument("--store-gib", type=float, metavar="N", help="the store's bound, in GiB")
    add("watch", watch, "follow a run from another terminal", studies=False)
    add("mlflow-sync", mlflow_sync, "deliver to MLflow what it does not have yet", studies=False)
    add(
        "mlflow-rebuild",
        mlflow_rebuild,
        "make every MLflow run again from the versioned history files",
        studies=False,
    )
    command = add("evaluate", evaluate, "evaluate your own model by the same graph", studies=False)
    evaluate_command.add_arguments(command)
    command = add(
        "export", export, "a cell's weights, code and card, for plain PyTorch", studies=False
    )
    _add_export_arguments(command)
    command = add(
        "diff", diff, "which numbers moved between two commits, by how much, why", studies=False
    )
    _add_diff_arguments(command)
    command = add(
        "reference", reference, "keep a finished study's rows in the repository", studies=False
    )
    command.add_argument("names", nargs="+", metavar="STUDY")
    command.add_argument("--device", metavar="NAME", help="after the @; default: what it ran on")
    command = add("select", select, "write the studies to run into params.yaml", studies=False)
    command.add_argument("names", nargs="+", metavar="NAME")
    return parser


def _add_export_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of `advtrain export`."""
    command.add_argument("cell", metavar="CELL", help="its name, or STUDY/CELL if several have it")
    command.add_argument("--weights", default="last", choices=("last", "best"))
    command.add_argument(
        "--out", metavar="DIR", help="a new folder; default exports/STUDY/CELL[-best]"
    )
    command.add_argument("--mlflow", action="store_true", help="add an MLflow model")
    command.add_argument(
        "--collapsed", action="store_true", help="export it even if its training collapsed"
    )


def _add_diff_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of `advtrain diff`."""
    command.add_argument(
        "before",
        metavar="REV1",
        help="a commit, branch, tag or DVC experiment with a dvc.lock or reference rows, or a "
        "folder of collected rows (reports/reference/...); with --params, a params file",
    )
    command.add_argument("after", metavar="REV2", nargs="?", help="likewise; default the workspace")
    command.add_argument(
        "--params",
        action="store_true",
        help="compare the finished cells of two params files, from the store",
    )
    command.add_argument(
        "--study",
        dest="only",
        nargs="+",
        metavar="NAME",
        help="these (digits, or a reference run: digits@cpu); default all in both",
    )
    command.add_argument("--same", action="store_true", help="show what did not move, too")
    for ending, what in (("json", "JSON"), ("md", "Markdown"), ("html", "a page")):
        command.add_argument(f"--{ending}", metavar="FILE", help=f"write it as {what}, too")


def find_root(start: Path) -> Path:
    """Return the repository's top folder: the nearest one upwards that holds `params.yaml`.

    Raises:
        CommandError: if there is none.
    """
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file() and (folder / "Snakefile").is_file():
            return folder
    raise CommandError(f"{start}: no params.yaml and Snakefile here or above; go to the repository")


def _use_code_of(root: Path) -> None:
    """Start again with the library of this repository if another copy's is installed."""
    own = (root / "src").resolve()
    if (own / "advtrain").is_dir() and Path(__file__).resolve().parent.parent != own:
        command = [sys.executable, "-m", "advtrain.cli", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": str(own)})


def _with_run(params: Params, names: Sequence[str]) -> Params:
    for name in names:
        if name not in params.studies:
            raise CommandError(f"there is no study {name!r}{did_you_mean(name, params.studies)}")
    return replace(params, run=tuple(names))


def _every_study(root: Path, params: Params) -> Graph:
    """Derive the graph of all studies, those of `advtrain evaluate` among them."""
    params = with_evaluations(root, params)
    return Graph(replace(params, run=tuple(params.studies)), root, names_only=True)


def status(root: Path, params: Params, arguments: argparse.Namespace) -> int:
    """Print the state of every node; 1 if something is to be done."""
    graph = Graph(params, root)
    found = states(graph)
    store = Store.of(root)
    needed = {node.id for node in _needed(graph, found)}
    for node in graph:
        state = found[node.id]
        if state.is_fresh and not arguments.all:
            continue
        notes = [] if state.is_fresh or not store.holds(node.stage, node.key) else ["in the store"]
        if not state.is_fresh and node.id not in needed:
            notes.append("not asked for: what is made from it is fresh")
        told = f" ({'; '.join(notes)})" if notes else ""
        print(f"{state.word:8} {node.stage:8} {node.name}{told}")
        for reason in state.reasons:
            print(f"{'':17} {reason}")
    lost = orphans(_every_study(root, params))
    for path in lost:
        print(f"{'orphan':8} {path.relative_to(root)}")
    counts = Counter(state.word for state in found.values())
    words = [
        f"{counts[word]} {word}"
        for word in ("fresh", "partial", "stale", "missing")
        if counts[word]
    ]
    words += [f"{len(lost)} orphans"] if lost else []
    print(f"{', '.join(params.run)}: {', '.join(words)}")
    return 1 if needed else 0


def plan(root: Path, params: Params, arguments: argparse.Namespace) -> int:
    """Print what a run would do and how long it is likely to take."""
    graph = Graph(params, root)
    needed = _needed(graph, states(graph))
    if not needed:
        print("nothing to do")
        return 0
    store = Store.of(root)
    rates = Rates.measured(root, store, _training_passes)
    total, longest, unknown = 0.0, 0.0, 0
    kept = {node.id for node in needed if store.holds(node.stage, node.key)}
    for stage in STAGES:
        nodes = [node for node in needed if node.stage == stage]
        computed = [node for node in nodes if node.id not in kept]
        seconds = [estimate(node, rates) for node in computed]
        known = [one for one in seconds if one is not None]
        missing = len(seconds) - len(known)
        total += sum(known)
        longest = max([longest, *known])
        unknown += missing
        restored = len(nodes) - len(computed)
        parts = [f"{len(computed)} to compute"] if computed else []
        parts += [f"{restored} to restore from the store"] if restored else []
        parts += [f"about {duration(sum(known))} of work"] if known and computed else []
        parts += [f"{missing} with no measured rate yet"] if missing else []
        if nodes:
            print(f"{stage:8} {', '.join(parts)}")
    counted = (node for node in needed if node.id not in kept)
    for forecast in forecasts(counted, rates, _forward_flops):
        print(f"{forecast.study}: {hours_line(forecast)}\n    {basis_line(forecast)}")
    wall = max(longest, total / max(arguments.cores, 1))
    print(f"about {duration(wall)} with {arguments.cores} at once", end="")
    print(f" for what was measured; {unknown} nodes are not in this figure" if unknown else "")
    return 0


def _training_passes(params: Mapping[str, Any]) -> float | None:
    """Count the passes of a training; torch is imported only if there is one to count."""
    from advtrain.training.cost_model import training_passes

    return training_passes(params)


def _forward_flops(
    model: Mapping[str, Any], channels: int, size: int, classes: int
) -> float | None:
    """Count the operations of a network; torch is imported only if there is one to count."""
    from advtrain.training.cost_model import forward_flops

    return forward_flops(model, channels, size, classes)


def _needed(graph: Graph, found: Mapping[str, State]) -> list[Node]:
    """Return what a run computes: what has to run, and is asked for by something that runs."""
    waiting = todo(graph, found)
    wanted: set[str] = set()
    reached = [graph.report] if graph.report.id in waiting else []
    while reached:
        node = reached.pop()
        if node.id not in wanted:
            wanted.add(node.id)
            reached += [one for one in node.inputs if one.id in waiting]
    return [node for node in graph if node.id in wanted]


def verify(root: Path, params: Params, arguments: argparse.Namespace) -> int:
    """Hash every output that a manifest describes; 1 if one differs."""
    checked, damaged = 0, 0
    for node in Graph(params, root):
        manifest = read_manifest(node.manifest)
        if manifest is None:
            left = [path for path in node.outputs if (root / path).exists()]
            if left:
                damaged += 1
                print(f"{left[0]} has no manifest beside it that can be read; delete it")
            continue
        checked += len(manifest["outputs"])
        for path, problem in byte_problems(root, manifest):
            damaged += 1
            mend = "or delete it: snakemake takes it from the store, or makes it again"
            print(f"{path} {problem}; `dvc checkout` restores it, {mend}")
    print(f"{checked} files checked, {damaged} damaged or absent")
    return 1 if damaged else 0


def prune(root: Path, params: Params, arguments: argparse.Namespace) -> int:
    """Remove orphans, the snapshots and unfinished work of other keys, and bound the store."""
    graph = _every_study(root, params)
    keys = frozenset(node.key for node in graph)
    bound = params.store_gib if arguments.store_gib is None else arguments.store_gib
    store = Store.of(root)
    gone = [(path, _size(path)) for path in orphans(graph)]
    for folder in ("specs", "wip"):
        for path in sorted((root / ".pipeline" / folder).rglob("*.*")):
            match = re.search(r"\.([0-9a-f]{16})(\.json|\.lock)?$", path.name)
            if match and match[1] not in keys and path.exists():
                gone.append((path, _size(path)))
    gone += store.bound(int(bound * GIB), keys)
    for path, size in gone:
        shown = path.relative_to(root) if path.is_relative_to(root) else path
        print(f"{'would remove' if arguments.dry_run else 'removed'} {shown} ({_mib(size)})")
        if not arguments.dry_run:
            _remove(path)
    if not arguments.dry_run:
        store.remove_leftovers()
    print(f"{_mib(sum(size for _, size in gone))} in {len(gone)} places")
    return 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def evaluate(root: Path, params: Params, arguments: argparse.Namespace) -> int:
    """Evaluate a model that was trained elsewhere; with `--dry-run`, print what would be done."""
    name, made = evaluate_command.overlay(root, Path.cwd(), params, arguments)
    params = evaluate_command.merged(root, params, made)
    if arguments.dry_run:
        print(evaluate_command.as_yaml(made))
        return plan(root, params, arguments)
    return evaluate_command.run(root, name, made, params, arguments.cores)


def reference(root: Path, params: Params, arguments: argparse.Namespace) -> int:
    """Copy the collected rows of finished studies to where git keeps them."""
    from advtrain.reference_command import keep_reference

    graph = Graph(_with_run(params, arguments.names), root)
    for name in arguments.names:
        folder = keep_reference(root, graph, name, arguments.device)
        print(f"{folder.relative_to(root)} ({_mib(_size(folder))}); commit it")
    return 0


def export(root: Path, params: Params, arguments: argparse.Namespace) -> int:
    """Write a cell's weights where plain PyTorch can load them, with the card."""
    from advtrain import export_command

    out = export_command.export(root, Path.cwd(), params, arguments)
    print(f"{out}: README.md says what it is and how to load it")
    return 0


def diff(root: Path, params: Params, arguments: argparse.Namespace) -> int:
    """Print which numbers moved; 1 if one did beyond noise."""
    from advtrain import diff_command

    found = diff_command.compare(root, Path.cwd(), params, arguments)
    diff_command.write(found, Path.cwd(), arguments)
    return 1 if diff_command.beyond_noise(found) else 0


def watch(root: Path, params: Params, arguments: argparse.Namespace) -> int:
    """Show the run's progress until it is interrupted."""
    started = time.time()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            parts = progress_line(root, time.time() - started).split(" · ")
            lines = "\n".join(parts) or "no run has been started here"
            clear = "\x1b[2J\x1b[H" if sys.stdout.isatty() else ""
            print(f"{clear}{lines}", flush=True)
            time.sleep(1 if clear else 10)
    return 0


def mlflow_sync(root: Path, params: Params, arguments: argparse.Namespace) -> int:
    """Deliver what the tracking server lacks; 1 if it could not be reached."""
    return _deliver(root, everything=False)


def mlflow_rebuild(root: Path, params: Params, arguments: argparse.Namespace) -> int:
    """Deliver all that is on disk, whatever was delivered before; nothing is logged twice."""
    return _deliver(root, everything=True)


def _deliver(root: Path, *, everything: bool) -> int:
    from advtrain.tracking.reconcile import reconcile_mlflow

    done = reconcile_mlflow(root, everything=everything)
    print(f"{done.delivered} runs delivered, {done.pending} pending")
    if done.pending:
        print(done.cause, file=sys.stderr)
    return 1 if done.pending else 0


def select(root: Path, params: Params, arguments: argparse.Namespace) -> int:
    """Write `run: [...]` into params.yaml, leaving every other character as it is."""
    _with_run(params, arguments.names)
    if params.run == tuple(arguments.names):
        return 0
    path = root / "params.yaml"
    text = path.read_text(encoding="utf-8")
    line = f"run: [{', '.join(arguments.names)}]"
    lists = r"^run:[ \t]*\[[^\]]*\]|^run:[^\n]*(?:\n[ \t]*-[^\n]*)*"
    changed, count = re.subn(lists, line, text, count=1, flags=re.MULTILINE)
    if not count:
        raise CommandError(f"params.yaml: no `run: [...]` to change; write there: {line}")
    path.write_text(changed, encoding="utf-8")
    print(f"params.yaml: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
