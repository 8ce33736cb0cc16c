"""The synthetic study with its tables, figures and report, as a run that finished leaves them."""

import json
from pathlib import Path
from typing import Any

from advtrain.graph.records import write_json
from advtrain.provenance import hash_file
from advtrain.reporting.tables import write_tables
from advtrain.results.collect import collect, write_collected
from tests.results import synthetic

STUDY = synthetic.STUDY
TABLES_KEY = "7" * 16
FINISHED = 500.0
CELL = "pgd_at-linf-0.1-s1"
CELL_KEY = synthetic.digest(f"train {CELL}")[:16]
SHOWN = synthetic.study_info(
    model="small", norm="linf", epsilons=[{"text": str(e), "value": e} for e in synthetic.EPSILONS]
)


def write_reported(root: Path) -> None:
    """Write everything below `root`."""
    synthetic.write_tree(root)
    _complete(root)
    write_collected(collect(STUDY, synthetic.read_records(root)), root / f"results/collect/{STUDY}")
    write_tables(root / f"results/collect/{STUDY}", SHOWN, root / f"reports/tables/{STUDY}")
    for picture in ("trade_off.svg", "trade_off.png"):
        path = root / f"reports/figures/{STUDY}/{picture}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"a picture, {picture}", encoding="utf-8")
    (root / "reports/index.html").write_text("the page", encoding="utf-8")
    describe(root)


def describe(root: Path, **changes: str) -> None:
    """Write the manifests; a change is the key of one of the four, by its stage."""
    keys = {"collect": "c" * 16, "tables": TABLES_KEY, "figures": "f" * 16, "report": "9" * 16}
    keys |= changes
    trained = {
        f"train:{STUDY}/{cell}": {"key": synthetic.digest(f"train {cell}")[:16], "digest": "0" * 16}
        for cell, *_ in synthetic.cells()
    }
    rows = {f"collect:{STUDY}": {"key": keys["collect"], "digest": "0" * 16}}
    tables = {f"tables:{STUDY}": {"key": keys["tables"], "digest": "0" * 16}}
    _manifest(root, f"results/collect/{STUDY}", keys["collect"], trained)
    _manifest(root, f"reports/tables/{STUDY}", keys["tables"], rows)
    _manifest(root, f"reports/figures/{STUDY}", keys["figures"], rows)
    _manifest(root, "reports", keys["report"], tables)


def _manifest(root: Path, folder: str, key: str, inputs: dict[str, Any]) -> None:
    files = [one for one in (root / folder).iterdir() if one.is_file() and one.stem != "manifest"]
    volatile = sorted(one for one in files if one.stem == "costs")
    write_json(
        root / folder / "manifest.json",
        {
            "key": key,
            "params": SHOWN,
            "code_digest": "b" * 16,
            "inputs": inputs,
            "outputs": {
                one.relative_to(root).as_posix(): {"size": 1, "sha256": hash_file(one)}
                for one in sorted(set(files) - set(volatile))
            },
            "volatile": [one.relative_to(root).as_posix() for one in volatile],
        },
    )


def _complete(root: Path) -> None:
    """Add what the tracking reads of a result and the tables do not."""
    for path in root.glob("results/train/*/*/timing.json"):
        write_json(path, json.loads(path.read_text(encoding="utf-8")) | {"epochs": []})
    for path in root.glob("results/attack/*/*/*/timing.json"):
        timing = {"started": 400.0, "finished": FINISHED, "seconds": 0.5, "device": "cpu"}
        write_json(path, timing)
        manifest = json.loads((path.parent / "manifest.json").read_text(encoding="utf-8"))
        cell = manifest["params"]["cell"]
        key = synthetic.digest(f"train {cell}")[:16]
        manifest["inputs"] = {
            "prepare:blobs": {"key": "d" * 16, "digest": "f" * 16},
            f"train:{STUDY}/{cell}": {"key": key, "digest": "0" * 16},
        }
        write_json(path.parent / "manifest.json", manifest)
