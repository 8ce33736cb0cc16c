"""`python -m pipeline.run SPEC.json`: run one node from its immutable spec.

The outputs appear by rename and the manifest last, so that a kill at any moment leaves either the
earlier results or the new ones. A finished cell of the same key is taken from the store.
"""

import contextlib
import errno
import json
import os
import platform
import shutil
import signal
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import FileLock

import advtrain
from advtrain.graph.nodes import CELL_STAGES
from advtrain.graph.records import (
    Manifest,
    absent_outputs,
    byte_problems,
    describe_outputs,
    make_manifest,
    outputs_digest,
    read_manifest,
    write_json,
)
from advtrain.graph.store import Store
from advtrain.provenance import (
    code_digest,
    digest_files,
    environment,
    git_commit,
    hash_file,
    recall,
)
from pipeline.devices import leased_device
from pipeline.job import Job, JobError, Progress, quiet_environment
from pipeline.memory import limit_to_share, peak_bytes, shortage_explained
from pipeline.processes import Used, processes_of, train_together
from pipeline.warm import HEAVY, ask

JOURNAL = ".pipeline/journal.jsonl"
EPOCH_TIMES = ("epoch", "time", "seconds", "measured")


def main(argv: list[str] | None = None) -> int:
    """Run the spec that the command line names; return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print("usage: python -m pipeline.run SPEC.json", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = Path.cwd()
    quiet_environment()
    try:
        spec = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{arguments[0]} cannot be read as a spec: {error}", file=sys.stderr)
        return 2
    name = f"{spec['stage']} {spec['name']}"
    workspace = root / ".pipeline/wip" / spec["stage"] / f"{spec['name']}.{spec['key']}"
    progress = Progress(
        root / ".pipeline/progress" / spec["stage"] / f"{spec['name']}.json",
        workspace / "history.jsonl",
        {
            "stage": spec["stage"],
            "name": spec["name"],
            "key": spec["key"],
            "params": spec["params"],
            "state": "running",
            "started": time.time(),
            "pid": os.getpid(),
            "host": platform.node(),
        },
    )
    lock = workspace.with_name(f"{workspace.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock):  # a killed workflow may have left a job that is still at it
            done = run(root, spec, workspace, progress)
    except KeyboardInterrupt:
        mark_interrupted(progress.path)
        return 130
    except Exception as error:  # the boundary: whatever it is, say it and keep it for the report
        cause = _cause(error)
        _journal(root, progress, "failed")
        print(f"{name}: {cause}", file=sys.stderr)
        _report_failure(progress, cause, root / "logs" / spec["stage"] / spec["name"])
        return 1
    _journal(root, progress, done)
    print(f"{name}: {done} ({time.time() - progress.facts['started']:.1f} s)", flush=True)
    progress.path.unlink(missing_ok=True)
    return 0


def run(root: Path, spec: dict[str, Any], workspace: Path, progress: Progress) -> str:
    """Run, restore or skip one node; return what was done in words."""
    forced = os.environ.get("ADVTRAIN_FORCE") == "1"
    inputs = _checked_inputs(root, spec)
    recorded = read_manifest(root / spec["folder"] / "manifest.json")
    whole = recorded is not None and not absent_outputs(root, spec["outputs"], recorded)
    same = recorded and recorded["key"] == spec["key"] and recorded["inputs"] == inputs
    if same and whole and not forced:
        return "is there already"
    store = Store.of(root)
    outputs = workspace / "outputs"
    shutil.rmtree(outputs, ignore_errors=True)
    workspace.mkdir(parents=True, exist_ok=True)
    kept = None if forced else store.take(spec, outputs)
    if kept is not None and _same_inputs(kept, inputs):
        manifest = make_manifest(spec, describe_outputs(outputs, spec), inputs, kept["environment"])
        _publish(root, spec["folder"], outputs, manifest)
        shutil.rmtree(workspace, ignore_errors=True)
        return "restored from the store of finished cells"
    shutil.rmtree(outputs, ignore_errors=True)
    _check_code(root, spec)
    manifest = _compute(root, spec, inputs, workspace, progress)
    _publish(root, spec["folder"], outputs, manifest)
    try:
        store.put(root, manifest)
    except OSError as error:  # the result is in its place; only the way back to it is lost
        print(f"not kept in the store of finished cells: {error}", file=sys.stderr)
    shutil.rmtree(workspace, ignore_errors=True)
    return "computed"


def _compute(
    root: Path,
    spec: dict[str, Any],
    inputs: dict[str, dict[str, str]],
    workspace: Path,
    progress: Progress,
) -> Manifest:
    """Run the step; return the manifest of what it wrote under the workspace."""
    progress.update()
    job, count = Job(root, spec, workspace, progress), processes_of(spec)
    used = _run_step(job, spec) if count == 1 else train_together(job, count)
    finished = time.time()
    timing = [path for path in spec["outputs"] if path.endswith("/timing.json")]
    epochs = progress.epochs()
    for path in timing:
        write_json(
            workspace / "outputs" / path,
            {
                "started": epochs[0]["time"] - epochs[0]["seconds"] if epochs else used.started,
                "finished": finished,
                "seconds": sum(e["seconds"] for e in epochs) if epochs else finished - used.started,
                "epochs": [{name: e[name] for name in EPOCH_TIMES if name in e} for e in epochs],
                "device": used.device,
                "peak_memory_bytes": used.peak_memory,
                "git_commit": git_commit(root),
            },
        )
    outputs = workspace / "outputs"
    absent = [path for path in spec["outputs"] if not (outputs / path).is_file()]
    if absent:
        raise JobError(f"the step wrote no {absent[0]}; its files and the graph disagree")
    return make_manifest(spec, describe_outputs(outputs, spec), inputs, environment())


def _run_step(job: Job, spec: dict[str, Any]) -> Used:
    """Run a job's step in this process."""
    with leased_device(job.root, spec) as device:
        step = import_module(f"pipeline.steps.{spec.get('step', spec['stage'])}")
        started = job.progress.since = time.time()
        with shortage_explained(spec):
            limit_to_share(spec)
            step.run(job)
        return Used(device(), peak_bytes(), started)


def _publish(root: Path, folder: str, outputs: Path, manifest: Manifest) -> None:
    """Move finished files to their places, the manifest last."""
    target = root / folder / "manifest.json"
    target.unlink(missing_ok=True)
    for path in (*manifest["outputs"], *manifest["volatile"]):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(outputs / path, root / path)
    write_json(target, manifest)


def _checked_inputs(root: Path, spec: dict[str, Any]) -> dict[str, dict[str, str]]:
    found = {}
    for one in spec["inputs"]:
        manifest = read_manifest(root / one["folder"] / "manifest.json")
        if manifest is None or manifest["key"] != one["key"]:
            got = manifest["key"] if manifest else "nothing"
            raise JobError(
                f"needs {one['id']} with the key {one['key']} and found {got}; "
                "the parameters or the code changed since the run began: start it again"
            )
        if one["id"].split(":")[0] in CELL_STAGES:
            _check_bytes(root, spec["stage"], manifest)  # prepared data is checked as it is loaded
        found[one["id"]] = {"key": one["key"], "digest": outputs_digest(manifest["outputs"])}
    return found


def _check_bytes(root: Path, stage: str, manifest: Manifest) -> None:
    """Refuse an input whose bytes are not those that its manifest, and so the stamps, promise."""
    for path, problem in byte_problems(root, manifest):
        if stage in CELL_STAGES or not path.startswith("checkpoints/"):
            raise JobError(
                f"{path} {problem}; `dvc checkout` restores it, or delete it and start again: "
                "it comes back from the store, or is made again"
            )


def _same_inputs(kept: Manifest, inputs: dict[str, dict[str, str]]) -> bool:
    """Whether a kept result was made from the very bytes that are on disk now."""
    return sorted(i["digest"] for i in kept["inputs"].values()) == sorted(
        i["digest"] for i in inputs.values()
    )


def _check_code(root: Path, spec: dict[str, Any]) -> None:
    """Refuse to run other code than the key covers: another copy's, or a newer one."""
    if Path(advtrain.__file__).resolve().parent != (root / "src/advtrain").resolve():
        raise JobError(f"runs {advtrain.__file__}, not the code of {root}; run it from there")
    recall(root)
    try:
        found = digest_files(root, spec["code"])
    except OSError as error:
        raise JobError(f"a file of its code is gone: {error.filename}; start it again") from None
    if code_digest(found) != spec["code_digest"]:
        changed = [file for file in found if found[file] != spec["code"][file]]
        raise JobError(f"{', '.join(changed)} changed since the run began: start it again")
    for entry in spec["params"].values():
        for path, digest in (entry.get("files", {}) if isinstance(entry, dict) else {}).items():
            if not (root / path).is_file() or hash_file(root / path) != digest:
                raise JobError(f"{path} changed since the run began: start it again")


def mark_interrupted(path: Path) -> None:
    """Note that a job was stopped by its user, which is no failure."""
    with contextlib.suppress(OSError, ValueError):
        write_json(path, json.loads(path.read_text(encoding="utf-8")) | {"state": "interrupted"})


def _cause(error: Exception) -> str:
    """Say in plain words what went wrong."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"no space left on the disk ({error}); earlier results are untouched. "
            "Free some (`advtrain prune`, `dvc gc`), then run again: it continues"
        )
    if isinstance(error, PermissionError):
        return f"{error}: check the owner and the permissions, then run again; nothing is lost"
    # The library's errors are written to be read; anything else is a surprise and says its type.
    written = isinstance(error, JobError | ValueError | FileNotFoundError | PermissionError)
    return str(error) if written and str(error) else f"{type(error).__name__}: {error}"


def _journal(root: Path, progress: Progress, what: str) -> None:
    """Append what was done to the workspace's journal, one JSON object a line."""
    facts = {name: progress.facts[name] for name in ("stage", "name", "key", "started")}
    line = json.dumps({**facts, "finished": time.time(), "what": what}) + "\n"
    with contextlib.suppress(OSError), (root / JOURNAL).open("a", encoding="utf-8") as file:
        file.write(line)


def _report_failure(progress: Progress, cause: str, log: Path) -> None:
    """Keep the cause for the report, and the traceback beside the log."""
    with contextlib.suppress(OSError):
        progress.update(state="failed", cause=cause.strip())
    trace = log.with_name(f"{log.name}.traceback.log")
    with contextlib.suppress(OSError):
        trace.parent.mkdir(parents=True, exist_ok=True)
        trace.write_text(traceback.format_exc(), encoding="utf-8")
        print(f"(traceback: {trace.relative_to(Path.cwd())})", file=sys.stderr)


if __name__ == "__main__":
    # The stage stands in the path of the spec: `.pipeline/specs/train/...`.
    heavy = any(f"/specs/{stage}/" in argument for stage in HEAVY for argument in sys.argv[1:])
    try:
        code = ask(sys.argv[1:]) if heavy else None
    except KeyboardInterrupt:
        name = Path(*Path(sys.argv[1]).parts[2:]).with_suffix("")  # drops `.json`, then the key
        mark_interrupted(Path(".pipeline/progress") / name.with_suffix(".json"))
        code = 130
    sys.exit(main() if code is None else code)
