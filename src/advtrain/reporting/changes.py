"""What changed between two versions of a cell: parameters, code, data, inputs, environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from advtrain.graph.dotted import changed
from advtrain.reporting.measure import read_cells
from advtrain.results.collect import Collected

SHORT = 8
"""How many digits of a hash tell it from another one."""


@dataclass(frozen=True)
class Version:
    """One of two states of a study that are compared.

    Attributes:
        name: what it is called: a commit, the workspace, a reference run and its device.
        collected: its rows.
        manifests: what the runs say of themselves, by cell (`trades-linf-0.2-s0`) and evaluation
            (`trades-linf-0.2-s0/pgd_20-linf-0.2`); with them the files whose code changed are
            named.
        environment: the versions that it was computed with, where no manifest says it.
    """

    name: str
    collected: Collected
    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def cells(self) -> dict[str, dict[str, Any]]:
        """The rows of the cells by name, with what they hold as JSON read."""
        return read_cells(self.collected)

    @cached_property
    def devices(self) -> dict[str, str]:
        """What each cell and evaluation was timed on, named as the manifests are."""
        return {
            "/".join(filter(None, (row["cell"], row["evaluation"]))): row["device"]
            for row in self.collected.costs.to_pylist()
            if row["device"] is not None
        }

    def computed_with(self, name: str) -> dict[str, str]:
        """Return the versions and the device that a cell or evaluation was computed with."""
        known = self.manifests.get(name, {}).get("environment") or self.environment
        device = {"device": self.devices[name]} if name in self.devices else {}
        return {**known, **device}


def training_changes(before: Version, after: Version, cell: str) -> list[str]:
    """Say what changed in the training of a cell that both have."""
    old, new = before.cells[cell], after.cells[cell]
    said = _params(old["params"], new["params"])
    said += _code(before, after, cell, old, new)
    if old["data_hash"] != new["data_hash"]:
        said.append(f"data: {_short(old['data_hash'])} → {_short(new['data_hash'])}")
    said += _inputs(old["upstream"], new["upstream"])
    said += _environment(before, after, cell)
    if not said and old["checkpoint_hash"] != new["checkpoint_hash"]:
        said.append("the same parameters and code gave other weights")
    for name in ("forward_passes", "backward_passes"):
        if old[name] != new[name]:
            said.append(f"{name.replace('_', ' ')}: {_count(old[name])} → {_count(new[name])}")
    if old["status"] != new["status"]:
        said.append(f"training: {old['status']} → {new['status']}")
    return said


def evaluation_changes(before: Version, after: Version, cell: str, evaluation: str) -> list[str]:
    """Say what changed in an attack or certificate on a cell, besides the training."""
    old = before.cells[cell]["evaluations"].get(evaluation)
    new = after.cells[cell]["evaluations"].get(evaluation)
    if old is None or new is None:
        return []
    own = (
        {name: value for name, value in one["params"].items() if name != "model"}
        for one in (old, new)
    )
    name = f"{cell}/{evaluation}"
    # Of what a transfer is crafted on, the rows say nothing; the cell itself has lines of its own.
    theirs, ours = (
        {
            read: found
            for read, found in version.manifests.get(name, {}).get("inputs", {}).items()
            if not read.endswith(f"/{cell}")
        }
        for version in (before, after)
    )
    return [
        *_params(*own),
        *_code(before, after, name, old, new),
        *(_inputs(theirs, ours) if theirs and ours else []),
        *_environment(before, after, name),
    ]


def _params(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {old} → {new}" for name, (old, new) in changed(before, after).items()]


def _code(
    before: Version, after: Version, name: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> list[str]:
    """Name the files whose syntax trees differ, or the folded digests where no more is known."""
    if old["code_digest"] == new["code_digest"]:
        return []
    if name in before.manifests and name in after.manifests:
        theirs, ours = (one.manifests[name]["code"] for one in (before, after))
        files = [f for f in sorted({*theirs, *ours}) if theirs.get(f) != ours.get(f)]
        return [f"code: {file}" for file in files]
    what = "evaluation" if "/" in name else "training"
    return [
        f"code of the {what}: {_short(old['code_digest'])} → {_short(new['code_digest'])}",
    ]


def _inputs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Name the trainings whose weights are read and that are others now; data has its own line."""
    read = [one for one in sorted({*before, *after}) if one.startswith("train:")]
    return [
        f"input: {one}"
        for one in read
        if before.get(one, {}).get("digest") != after.get(one, {}).get("digest")
    ]


def _environment(before: Version, after: Version, name: str) -> list[str]:
    old, new = before.computed_with(name), after.computed_with(name)
    both = sorted(old.keys() & new.keys())
    return [f"{one}: {old[one]} → {new[one]}" for one in both if old[one] != new[one]]


def _count(passes: float | None) -> str:
    return "unknown" if passes is None else f"{passes:.0f}"


def _short(digest: str) -> str:
    return digest[:SHORT]
