"""What the renderers are told of a study besides its rows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def study_info(
    shown: Mapping[str, Any], root: Path, failures: Sequence[Mapping[str, str]] = ()
) -> dict[str, Any]:
    """Return the study's parameters with the facts of its data set and what failed.

    Args:
        shown: the study's part of `params.yaml`, as the graph resolves it; a reference run's says
            how many classes there are.
        root: the repository's top folder, with the prepared data set.
        failures: `cell`, `stage`, `state` (failed or missing) and `cause` of what has no rows.
    """
    if "classes" in shown:
        return {**shown, "failures": list(failures)}
    path = root / "data/prepared" / shown["dataset"] / "dataset.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"classes": []}
    return {**shown, "classes": len(facts["classes"]), "failures": list(failures)}
