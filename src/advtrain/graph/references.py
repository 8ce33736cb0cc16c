"""Reference runs: rows that are committed, so that a run can be compared with them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advtrain.provenance import hash_file

FOLDER = "reports/reference"
FACTS = "reference.json"
"""What a reference says of itself, beside its rows."""


@dataclass(frozen=True)
class Reference:
    """The collected rows of a study as one device made them.

    Attributes:
        name: `cifar10_cpu@cpu`, the folder's.
        study: of `params.yaml`.
        folder: relative to the repository.
        facts: what it was made on and with: `devices`, `processor`, `environment` (versions),
            `finished` (a day), `hours`, `commit`, `classes` of the data set, and the SHA-256 of
            each of its `files`.
        files: the same, as the files are now.
    """

    name: str
    study: str
    folder: str
    facts: Mapping[str, Any]
    files: Mapping[str, str]

    @property
    def words(self) -> str:
        """What it was made on, with and when."""
        facts = self.facts
        devices = ", ".join(facts["processor"] if d == "cpu" else d for d in facts["devices"])
        return (
            f"{devices}; torch {facts['environment']['torch']}, Python "
            f"{facts['environment']['python']}; {facts['hours']:.2g} hours of jobs; "
            f"{facts['finished']}"
        )


def study_of(name: str) -> str:
    """Return the study of a reference run (`cifar10_cpu@cpu`); a study is its own."""
    return name.partition("@")[0]


def references(root: Path) -> Iterator[Reference]:
    """Read what is committed, by name.

    Raises:
        ValueError: if one does not say what it is, or its files are not those that it says; naming
            the file and the mend.
    """
    for folder in sorted(one for one in (root / FOLDER).glob("*@*") if one.is_dir()):
        path = folder / FACTS
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            found = Reference(
                name=folder.name,
                study=study_of(folder.name),
                folder=folder.relative_to(root).as_posix(),
                facts=facts,
                files={one.name: hash_file(one) for one in sorted(folder.glob("*.parquet"))},
            )
            _ = found.words, facts["classes"]
            said = dict(facts["files"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path.relative_to(root)} does not say what the rows beside it are "
                f"({type(error).__name__}: {error}); restore it (`git checkout -- "
                f"{folder.relative_to(root)}`), or remove the folder"
            ) from None
        for name in sorted({*said, *found.files}):
            if said.get(name) != found.files.get(name):
                raise ValueError(
                    f"{found.folder}/{name} is not the file that {FACTS} beside it names; restore "
                    f"it (`git checkout -- {found.folder}`), or remove the folder"
                )
        yield found
