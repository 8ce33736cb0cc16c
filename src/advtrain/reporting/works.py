"""The works that a paper cites, and what it says of each module."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from advtrain.reporting.pages import TEMPLATES

WORKS = TEMPLATES / "works.yaml"


@dataclass(frozen=True)
class Work:
    """One entry of a list of references."""

    key: str
    authors: str
    title: str
    where: str


@dataclass(frozen=True)
class Module:
    """What is said of a module: half a sentence, and the keys of the works that it is from."""

    says: str = ""
    works: tuple[str, ...] = ()


@dataclass(frozen=True)
class Library:
    """All works, by key, and the modules, by kind and name."""

    works: dict[str, Work]
    modules: dict[str, dict[str, Module]]

    def module(self, kind: str, name: str) -> Module:
        """Return what is said of a module; nothing of one that was added since."""
        return self.modules[kind].get(name, Module())


def read_library(path: Path = WORKS) -> Library:
    """Read the works.

    Raises:
        ValueError: if a module names a work that is not there.
    """
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    works = {key: Work(key, **said) for key, said in found["works"].items()}
    modules = {
        kind: {
            name: Module(said.get("says", ""), tuple(said.get("works", ())))
            for name, said in of_it.items()
        }
        for kind, of_it in found["modules"].items()
    }
    for kind, of_it in modules.items():
        for name, module in of_it.items():
            if absent := set(module.works) - set(works):
                raise ValueError(
                    f"{path.name}: modules.{kind}.{name}.works: there is no work "
                    f"{', '.join(sorted(absent))}; expected a key of `works`"
                )
    return Library(works, modules)
