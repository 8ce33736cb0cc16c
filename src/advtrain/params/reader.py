"""`params.yaml` -> `Params`: the one place that owns types, ranges and their error messages."""

import difflib
import functools
import itertools
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from advtrain.params import quantities
from advtrain.params.schema import PUBLISHED, Curve, Entry, Epsilon, Params, Study
from advtrain.params.signatures import (
    PACKAGE,
    Parameter,
    Value,
    is_trained,
    modules,
    needs_source,
    needs_threat,
    norms,
    signature,
    unfit,
)

try:  # the parser in C, where PyYAML was built with it, is ten times as fast
    from yaml import CSafeLoader as _Loader
except ImportError:
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

SECTIONS = {
    "datasets": "data",
    "models": "models",
    "recipes": "training",
    "methods": "methods",
    "attacks": "attacks",
    "certificates": "certificates",
}
TOP = ("run", "raw_data", "device", "cells_per_gpu", "store_gib", *SECTIONS, "studies")
STUDY = (
    *("title", "description", "dataset", "model", "recipe", "norm", "epsilons", "methods"),
    *("seeds", "attacks", "curve", "weights", "attack_examples", "attack_batch_size"),
    *("certificates", "certify_examples", "attack_precision", "keep_adversarial", "audits"),
    "published",
)
ROLES = {"methods": ("teacher", "start"), "attacks": ("source",)}
NORMS = ("linf", "l2", "l1")
LARGEST = {"l2": 32.0, "l1": 1000.0}  # published ones are 0.5 to 5, and 12 to 255
PRECISIONS = ("float32", "tf32", "bfloat16")
KEPT = ("float32", "float16")
SMALLEST_FLOAT16 = 2.0**-12  # half the distance of two float16 numbers below 1
WEIGHTS = ("last", "best")


class ParamsError(ValueError):
    """`params.yaml` says something that cannot be run; one line for each problem."""


class _StrictLoader(_Loader):
    """A YAML loader that refuses a key given twice, where YAML would keep the last in silence."""


def _unique_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *other`, which may come again
            continue
        key = loader.construct_object(key_node)
        if not isinstance(key, Hashable):
            line = key_node.start_mark.line + 1
            raise ParamsError(f"line {line}: a list or a mapping cannot be a key")
        if key in seen:
            line = key_node.start_mark.line + 1
            raise ParamsError(f"line {line}: {key!r} is given twice; remove one of the two")
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def load_yaml(path: Path) -> dict[str, Any]:
    """Load a parameter file, refusing duplicate keys.

    Raises:
        ParamsError: naming the file, and the line where there is one.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except FileNotFoundError:
        raise ParamsError(f"{path} is not there; run from the repository's top folder") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path.name} is not valid YAML: {error}") from None
    except ParamsError as error:
        raise ParamsError(f"{path.name}: {error}") from None
    if not isinstance(found, dict):
        raise ParamsError(f"{path.name} holds no mapping; expected the keys {', '.join(TOP)}")
    return found


def read(path: Path, config: Mapping[str, Any] | None = None) -> Params:
    """Read and check the parameters.

    Args:
        path: the `params.yaml`.
        config: the values to use in the file's place: Snakemake's `config`, which is the file
            with what `--config` gave laid over it.

    Raises:
        ParamsError: with one line for each problem found, each naming its place and the mend.
    """
    found = load_yaml(path)
    return _Reader(path.name).params(dict(config) if config is not None else found)


@functools.cache
def published_trainings() -> tuple[str, ...]:
    """List the trainings of the registry of published numbers: `work/name`.

    The registry stands below the parameters, so that its files are read and not its module.
    """
    return tuple(
        f"{path.stem}/{name}"
        for path in sorted((PACKAGE / "published/registry").glob("*.yaml"))
        for name in load_yaml(path).get("trainings", {})
    )


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return `; did you mean 'beta'?`, or the list of what is known."""
    known = list(known)
    close = difflib.get_close_matches(str(word), known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else "; none is defined"


class _Reader:
    """Collects every problem, so that one run shows them all."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[str] = []
        self.groups: dict[str, tuple[str, ...]] = {}

    def problem(self, place: str, what: str) -> None:
        self.problems.append(f"{self.file}: {place}{what}")

    def params(self, given: Mapping[str, Any]) -> Params:
        self.unknown("", given, TOP)
        attacks = self.sets(given.get("attacks"))
        sections = {
            name: self.section(name, attacks if name == "attacks" else given.get(name))
            for name in SECTIONS
        }
        self.upstream(sections["methods"])
        self.sources(sections["attacks"], sections["methods"])
        studies: dict[str, Study] = {}
        for name, study in self.mapping("studies", given.get("studies")).items():
            if self.name_is_fine(f"studies.{name}", name):
                studies[name] = self.study(name, study, sections)
        run = self.names("run", given.get("run"), studies, "study")
        raw_data = given.get("raw_data", "data/raw")
        if not isinstance(raw_data, str):
            self.problem("raw_data", f": expected a folder, got {raw_data!r}")
        device = given.get("device", "auto")
        if device not in ("auto", "cpu", "cuda"):
            self.problem("device", f": expected auto, cpu or cuda, got {device!r}")
        count = Parameter("cells_per_gpu", "Count", (), False, 1)
        cells = self.value("cells_per_gpu", count, given)
        store = self.value(
            "store_gib", Parameter("store_gib", "NonNegative", (), False, 20.0), given
        )
        if self.problems:
            raise ParamsError("\n".join(self.problems))
        return Params(
            run=run,
            raw_data=raw_data,
            device=device,
            cells_per_gpu=cells,  # type: ignore[arg-type]
            store_gib=float(store),  # type: ignore[arg-type]
            studies=studies,
            source=given,
            **sections,
        )

    def unknown(self, place: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
        for key in given:
            if key not in known:
                dot = f"{place}." if place else ""
                self.problem(f"{dot}{key}", f" is not a key{did_you_mean(key, known)}")

    def mapping(self, place: str, given: Any) -> dict[str, Any]:
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            self.problem(place, f": expected a mapping of names, got {given!r}")
            return {}
        for key in given:
            if not isinstance(key, str):
                # DVC sorts the keys of a mapping, which it cannot if some are numbers.
                self.problem(place, f": write the key {key} in quotes, '{key}'")
        return {str(key): value for key, value in given.items()}

    def name_is_fine(self, place: str, name: str) -> bool:
        if name and all(c.isalnum() or c in "_." for c in name) and name[0].isalnum():
            return True
        self.problem(place, ": a name holds letters, digits, '_' and '.' (it names files)")
        return False

    def value(self, place: str, parameter: Parameter, given: Mapping[str, Any]) -> Value:
        if parameter.name not in given:
            return parameter.default
        try:
            return parameter.read(given[parameter.name])
        except ValueError as error:
            self.problem(place, f": {error}")
            return parameter.default

    def section(self, section: str, given: Any) -> dict[str, Entry]:
        entries = {}
        for name, entry in self.mapping(section, given).items():
            place = f"{section}.{name}"
            values = self.mapping(place, entry)
            if self.name_is_fine(place, name):
                module = name if section != "recipes" else "loop"
                if section != "recipes":
                    module = str(values.pop("module", name))
                roles = ROLES.get(section, ())
                upstream = {one: values.pop(one) for one in roles if one in values}
                entry = self.entry(section, place, name, module, values)
                entries[name] = replace(
                    entry, upstream={r: str(of) for r, of in upstream.items() if of is not None}
                )
        return entries

    def sets(self, given: Any) -> Any:
        """Write out the attacks of each set: `{module: corruption, each: {severity: [1, 5]}}`.

        A set `cifar10_c` with `each: {kind: [fog, snow], severity: [1, 5]}` stands for the four
        attacks `cifar10_c.fog.1`, `cifar10_c.fog.5` ..., in a study's list too.
        """
        if not isinstance(given, Mapping):
            return given
        written: dict[Any, Any] = {}
        for name, entry in given.items():
            if not isinstance(entry, Mapping) or "each" not in entry:
                written[name] = entry
                continue
            place = f"attacks.{name}.each"
            lists = self.mapping(place, entry["each"])
            for key, values in lists.items():
                if not isinstance(values, list | tuple) or not values:
                    self.problem(f"{place}.{key}", f": expected a list of values, got {values!r}")
                    lists[key] = []
            common = {key: value for key, value in entry.items() if key != "each"}
            common.setdefault("module", name)
            made = {
                ".".join([str(name), *map(str, values)]): {
                    **common,
                    **dict(zip(lists, values, strict=True)),
                }
                for values in itertools.product(*lists.values())
            }
            for twice in sorted({*made} & {*map(str, given)}):
                self.problem(f"attacks.{twice}", f" is an entry and a member of the set {name}")
            written |= made
            self.groups[str(name)] = tuple(made)
        return written

    def members(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Put the members of a set in the place of its name."""
        groups = self.groups
        return {one: value for name, value in given.items() for one in groups.get(name, (name,))}

    def upstream(self, methods: Mapping[str, Entry]) -> None:
        """Check what the methods say of their `teacher` and `start`."""
        for name, entry in methods.items():
            for role, of in entry.upstream.items():
                place = f"methods.{name}.{role}"
                if not self.trains(entry):
                    self.problem(place, f": {name} is given, not trained; take it out")
                elif of.startswith(PUBLISHED):
                    if role != "start":
                        self.problem(place, f": expected the name of a method, got {of!r}")
                    elif not re.fullmatch(rf"{PUBLISHED}\w+/\w+", of, re.ASCII):
                        self.problem(
                            place,
                            f": expected {PUBLISHED}<model>/<weights> such as "
                            f"{PUBLISHED}resnet50/IMAGENET1K_V2, got {of!r}",
                        )
                elif of not in methods:
                    self.problem(place, f": there is no method {of!r}{did_you_mean(of, methods)}")
                elif {entry.module, methods[of].module} <= set(modules("methods")) and (
                    needs_threat(methods[of].module) and not needs_threat(entry.module)
                ):
                    self.problem(
                        place,
                        f": {of} is trained at a budget and {name} has none, so there is no one "
                        f"{of} to read; name a method without a budget",
                    )
        try:
            TopologicalSorter(
                {name: one.upstream_methods.values() for name, one in methods.items()}
            ).prepare()
        except CycleError as error:
            chain = error.args[1][::-1]
            self.problem(
                f"methods.{chain[0]}",
                f": {' -> '.join(chain)} is a circle of teacher and start, of which none can be "
                "trained first; take one of them out",
            )

    def sources(self, attacks: Mapping[str, Entry], methods: Mapping[str, Entry]) -> None:
        """Check whose network an attack is crafted on."""
        for name, entry in attacks.items():
            of = entry.upstream.get("source")
            place = f"attacks.{name}.source"
            if entry.module not in modules("attacks"):
                continue
            if of is None and needs_source(entry.module):
                self.problem(place, ": name the method whose network it is crafted on")
            elif of is not None and not needs_source(entry.module):
                self.problem(place, f" is not a parameter of {entry.module}")
            elif of is not None and of not in methods:
                self.problem(place, f": there is no method {of!r}{did_you_mean(of, methods)}")

    def entry(
        self, section: str, place: str, name: str, module: str, given: dict[str, Any]
    ) -> Entry:
        try:
            known = self.signature(section, module)
        except FileNotFoundError:
            kind = SECTIONS[section]
            mend = did_you_mean(module, modules(kind))
            self.problem(place, f": there is no src/advtrain/{kind}/{module}.py{mend}")
            return Entry(name, module, {})
        except (TypeError, SyntaxError) as error:
            self.problem(place, f": {error}")
            return Entry(name, module, {})
        for key in given:
            if key not in known:
                of = "the recipe" if section == "recipes" else module
                mend = did_you_mean(key, (*known, *ROLES.get(section, ())))
                self.problem(f"{place}.{key}", f" is not a parameter of {of}{mend}")
        values = {key: self.value(f"{place}.{key}", one, given) for key, one in known.items()}
        return Entry(name, module, values)

    def signature(self, section: str, module: str) -> dict[str, Parameter]:
        if section == "recipes":
            return signature("training", "loop", "train")
        found = signature(SECTIONS[section], module)
        if section == "datasets":
            found = {**signature("data", "prepare"), **found}
        return found

    def names(self, place: str, given: Any, known: Iterable[str], what: str) -> tuple[str, ...]:
        if isinstance(given, str):
            given = [given]
        if not isinstance(given, list | tuple) or not given:
            self.problem(place, f": expected a list of names (one {what} at least), got {given!r}")
            return ()
        known = list(known)
        for name in given:
            if not isinstance(name, str) or name not in known:
                self.problem(place, f": there is no {what} {name!r}{did_you_mean(name, known)}")
        self.unique(place, given)
        return tuple(str(name) for name in given)

    def unique(self, place: str, given: Iterable[Any]) -> None:
        seen: list[Any] = []
        for one in given:
            if one in seen:
                self.problem(place, f": {one!r} is given twice, which would make duplicate cells")
            seen.append(one)

    def one(self, place: str, given: Any, known: Mapping[str, Any], what: str) -> str:
        if not isinstance(given, str) or given not in known:
            self.problem(place, f": there is no {what} {given!r}{did_you_mean(given, known)}")
        return str(given)

    def epsilons(self, place: str, given: Any, norm: str) -> tuple[Epsilon, ...]:
        if not isinstance(given, list | tuple) or not given:
            self.problem(place, f": expected a list of budgets such as [8/255], got {given!r}")
            return ()
        budgets = [self.epsilon(f"{place}[{i}]", one, norm) for i, one in enumerate(given)]
        texts: dict[float, str] = {}
        for one in budgets:
            if one.value in texts:
                self.problem(
                    place,
                    f": {texts[one.value]} and {one.text} are the same budget, "
                    "which would make duplicate cells; remove one",
                )
            texts[one.value] = one.text
        return tuple(budgets)

    def epsilon(self, place: str, given: Any, norm: str) -> Epsilon:
        try:
            value = quantities.fraction(given)
        except (ValueError, AttributeError, TypeError):
            self.problem(place, f": expected a budget such as 8/255 or 0.2, got {given!r}")
            return Epsilon(str(given), 0.0)
        text = str(given).replace(" ", "")
        if norm == "linf" and not 0 <= value <= 1:
            mend = f"; did you mean {text}/255?" if 1 < value <= 255 else ""
            self.problem(place, f": linf epsilon is in [0, 1] pixel units, got {text}{mend}")
        elif norm in LARGEST and not 0 <= value < LARGEST[norm]:
            mend = f"; did you mean {text}/255?" if norm == "l2" and 1 < value <= 255 else ""
            self.problem(place, f": {norm} epsilon is in pixel units of [0, 1], got {text}{mend}")
        return Epsilon(text, value)

    def study(self, name: str, given: Any, sections: Mapping[str, Mapping[str, Entry]]) -> Study:
        place = f"studies.{name}"
        values = self.mapping(place, given)
        self.unknown(place, values, STUDY)
        norm = values.get("norm", "linf")
        if norm not in NORMS:
            self.problem(f"{place}.norm", f": expected one of {', '.join(NORMS)}, got {norm!r}")
        methods = self.names(
            f"{place}.methods", values.get("methods"), sections["methods"], "method"
        )
        epsilons = self.epsilons(f"{place}.epsilons", values.get("epsilons"), norm)
        listed = values.get("attacks")
        if isinstance(listed, list | tuple):
            groups = self.groups
            listed = [one for name in listed for one in groups.get(str(name), (name,))]
        attacks = self.names(f"{place}.attacks", listed, sections["attacks"], "attack")
        by_attack = self.weights(f"{place}.weights", values.get("weights"), attacks)
        weights = tuple(dict.fromkeys(one for found in by_attack.values() for one in found))
        for attack, which in by_attack.items():
            if which and "last" in weights and "last" not in which:
                self.problem(
                    f"{place}.weights",
                    f": {attack} is not run on the last weights, of which the tables show the "
                    "worst case over all attacks; add last to it, or take last out everywhere",
                )
        if values.get("certificates") and weights and "last" not in weights:
            self.problem(
                f"{place}.weights",
                ": certificates are of the last weights, which this study does not attack; add "
                "last, so that an attack can refute them, or take the certificates out",
            )
        trained = tuple(m for m in methods if self.trains(sections["methods"].get(m)))
        recipes = self.recipes(place, values.get("recipe"), trained, sections["recipes"])
        self.upstream_in_study(place, methods, recipes, sections)
        curve = values.get("curve")
        named = str(curve.get("attack")) if isinstance(curve, Mapping) else ""
        self.known_norms(place, norm, methods, attacks, sections, named)
        self.fitting_recipes(place, methods, recipes, sections)
        for one in epsilons:
            if one.value == 0:
                self.problem(f"{place}.epsilons", ": a budget of 0 allows no attack; take it out")
        self.sources_in_study(place, methods, attacks, sections)
        batch = Parameter("attack_batch_size", "Count", (), False, 250)
        certify = Parameter("certify_examples", "Count", (), True, None)
        read: Callable[[Parameter], Value] = lambda p: self.value(f"{place}.{p.name}", p, values)  # noqa: E731
        return Study(
            name=name,
            title=self.text(f"{place}.title", values.get("title", name)),
            description=self.text(f"{place}.description", values.get("description", "")),
            dataset=self.one(
                f"{place}.dataset", values.get("dataset"), sections["datasets"], "data set"
            ),
            model=self.one(f"{place}.model", values.get("model"), sections["models"], "model"),
            recipes=recipes,
            norm=norm,
            epsilons=epsilons,
            methods=methods,
            seeds=self.seeds(f"{place}.seeds", values.get("seeds", [0]), epsilons),
            attacks=attacks,
            curve=self.curve(place, values.get("curve"), sections["attacks"], norm),
            weights=weights,
            attack_weights=by_attack,
            attack_examples=self.examples(
                f"{place}.attack_examples", values.get("attack_examples"), attacks
            ),
            attack_precision=self.choice(
                f"{place}.attack_precision", values.get("attack_precision", "float32"), PRECISIONS
            ),
            adversarial=self.kept(place, values, attacks, norm, epsilons),
            strict=self.choice(
                f"{place}.audits", values.get("audits", "report"), ("report", "strict")
            )
            == "strict",
            attack_batch_size=read(batch),  # type: ignore[arg-type]
            certificates=self.certificates(
                f"{place}.certificates",
                values.get("certificates"),
                methods,
                sections["certificates"],
            ),
            certify_examples=read(certify),  # type: ignore[arg-type]
            published=self.published(f"{place}.published", values.get("published"), methods),
        )

    def upstream_in_study(
        self,
        place: str,
        methods: tuple[str, ...],
        recipes: Mapping[str, str],
        sections: Mapping[str, Mapping[str, Entry]],
    ) -> None:
        """Check that a study trains what its methods read, and uses what a teacher labels."""
        for method in methods:
            entry = sections["methods"].get(method)
            if entry is None:
                continue
            for role, of in entry.upstream_methods.items():
                if of in sections["methods"] and of not in methods:
                    self.problem(
                        f"{place}.methods",
                        f": {method} reads the weights of {of} (methods.{method}.{role}), which "
                        f"the study does not list; add {of}",
                    )
            recipe = sections["recipes"].get(recipes.get(method, ""))
            unused = recipe is not None and recipe.parameters.get("extra_fraction") == 0
            if recipe and unused and "teacher" in entry.upstream:
                self.problem(
                    f"{place}.recipe",
                    f": recipes.{recipe.name}.extra_fraction is 0, so that nothing learns from "
                    f"what {method}'s teacher labels; set it above 0 (0.5 is half of each "
                    "minibatch), or take the teacher out",
                )

    def seeds(
        self, place: str, given: Any, epsilons: tuple[Epsilon, ...]
    ) -> dict[float, tuple[int, ...]]:
        """Read `seeds: [0, 1]`, or `seeds: {default: [0], '0.2': [0, 1, 2]}`."""
        if not isinstance(given, Mapping):
            return dict.fromkeys((one.value for one in epsilons), self.seed_list(place, given))
        texts = {one.value: one.text for one in epsilons}
        found: dict[float, tuple[int, ...]] = {}
        default: tuple[int, ...] | None = None
        for text, seeds in self.mapping(place, given).items():
            listed = self.seed_list(f"{place}.{text}", seeds)
            if text == "default":
                default = listed
                continue
            try:
                value = quantities.fraction(text)
            except ValueError:
                value = -1.0
            if value not in texts:
                known = ", ".join(("default", *texts.values()))
                self.problem(f"{place}.{text}", f" is not a budget of the study; known: {known}")
            elif value in found:
                self.problem(f"{place}.{text}", " is a budget that is given twice; remove one")
            found[value] = listed
        for value, text in texts.items():
            if value not in found and default is None:
                self.problem(place, f": none for the budget {text}; add it, or a `default`")
        return {value: found.get(value, default or ()) for value in texts}

    def seed_list(self, place: str, given: Any) -> tuple[int, ...]:
        if (
            not isinstance(given, list | tuple)
            or not given
            or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in given)
        ):
            self.problem(place, f": expected a list of whole numbers, got {given!r}")
            return ()
        self.unique(place, given)
        return tuple(given)

    def certificates(
        self, place: str, given: Any, methods: tuple[str, ...], known: Mapping[str, Entry]
    ) -> dict[str, tuple[str, ...]]:
        """Read `certificates: [name]` (of all methods), or `certificates: {name: [method]}`."""
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            return dict.fromkeys(self.names(place, given, known, "certificate"), methods)
        found = {}
        for name, of in self.mapping(place, given).items():
            if name not in known:
                mend = did_you_mean(name, known)
                self.problem(place, f": there is no certificate {name!r}{mend}")
            found[name] = self.names(f"{place}.{name}", of, methods, "method of this study")
        return found

    def published(
        self, place: str, given: Any, methods: tuple[str, ...]
    ) -> dict[str, tuple[str, ...]]:
        """Read `published: {pgd_at: free/pgd_at, trades: [trades/trades, lesson/trades]}`."""
        values = self.mapping(place, given)
        self.unknown(place, values, methods)
        found = {}
        for method, of in values.items():
            listed = [of] if isinstance(of, str) else of
            if not isinstance(listed, list | tuple) or not listed:
                self.problem(
                    f"{place}.{method}",
                    f": expected the name of a published training such as free/pgd_at, got {of!r}",
                )
                continue
            for name in dict.fromkeys(map(str, listed)):
                self.published_training(f"{place}.{method}", name)
            found[method] = tuple(dict.fromkeys(map(str, listed)))
        return found

    def published_training(self, place: str, name: str) -> None:
        """Check that the registry knows a training."""
        known = published_trainings()
        work, _, _ = name.partition("/")
        if name not in known:
            trainings = [one for one in known if one.startswith(f"{work}/")]
            works = dict.fromkeys(one.partition("/")[0] for one in known)
            mend = did_you_mean(name, trainings) if trainings else did_you_mean(work, works)
            what = "training" if trainings else "work"
            self.problem(place, f": there is no published {what} {name!r}{mend}")

    def known_norms(
        self,
        place: str,
        norm: str,
        methods: tuple[str, ...],
        attacks: tuple[str, ...],
        sections: Mapping[str, Mapping[str, Entry]],
        curve: str,
    ) -> None:
        """Check that the methods and attacks of a study know its norm, and the curve's attack."""
        listed = attacks
        attacks = (*attacks, curve) if curve and curve not in attacks else attacks
        for section, names in (("methods", methods), ("attacks", attacks)):
            for name in names:
                entry = sections[section].get(name)
                if entry is None or entry.module not in modules(section) or norm not in NORMS:
                    continue
                if section == "methods" and not needs_threat(entry.module):
                    continue
                known = norms(section, entry.module)
                if norm not in known and (set(known) & set(NORMS) or name not in listed):
                    self.problem(
                        f"{place}.{section}",
                        f": {name} knows the norm {' and '.join(known)}, the study's is {norm}; "
                        f"take {name} out, or change {place}.norm",
                    )

    def fitting_recipes(
        self,
        place: str,
        methods: tuple[str, ...],
        recipes: Mapping[str, str],
        sections: Mapping[str, Mapping[str, Entry]],
    ) -> None:
        """Check that each method can be trained with its recipe; networks the job checks."""
        for name in methods:
            method = sections["methods"].get(name)
            recipe = sections["recipes"].get(recipes.get(name, ""))
            if method is None or recipe is None or method.module not in modules("methods"):
                continue
            if problem := unfit(method.module, recipe.parameters):
                self.problem(f"{place}.recipe", f": {name} with {recipe.name}: {problem}")

    def sources_in_study(
        self,
        place: str,
        methods: tuple[str, ...],
        attacks: tuple[str, ...],
        sections: Mapping[str, Mapping[str, Entry]],
    ) -> None:
        """Check that a study trains the networks that its attacks are crafted on."""
        for attack in attacks:
            entry = sections["attacks"].get(attack)
            of = entry.upstream.get("source") if entry else None
            if of in sections["methods"] and of not in methods:
                self.problem(
                    f"{place}.attacks",
                    f": {attack} is crafted on the network of {of} (attacks.{attack}.source), "
                    f"which the study does not list; add {of} to its methods",
                )

    def choice(self, place: str, given: Any, known: tuple[str, ...]) -> str:
        if given not in known:
            self.problem(place, f": expected one of {', '.join(known)}, got {given!r}")
        return str(given)

    def weights(
        self, place: str, given: Any, attacks: tuple[str, ...]
    ) -> dict[str, tuple[str, ...]]:
        """Read `weights: [last]`, or `weights: {default: [last, best], autoattack: [last]}`."""
        if not isinstance(given, Mapping):
            return dict.fromkeys(attacks, self.weights_list(place, given))
        values = self.members(self.mapping(place, given))
        self.unknown(place, values, ("default", *attacks))
        read = {name: self.weights_list(f"{place}.{name}", one) for name, one in values.items()}
        default = read.get("default", WEIGHTS)
        return {name: read.get(name, default) for name in attacks}

    def weights_list(self, place: str, given: Any) -> tuple[str, ...]:
        if given is None:
            return WEIGHTS
        if not isinstance(given, list | tuple) or not (
            given and all(one in WEIGHTS for one in given)
        ):
            self.problem(place, f": expected a list of last, best, got {given!r}")
            return ()
        self.unique(place, given)
        return tuple(given)

    def examples(self, place: str, given: Any, attacks: tuple[str, ...]) -> dict[str, int | None]:
        """Read `attack_examples: 500`, or `attack_examples: {default: 500, autoattack: 100}`."""
        values = given if isinstance(given, Mapping) else {"default": given}
        values = self.members(self.mapping(place, values))
        self.unknown(place, values, ("default", *attacks))
        read = {
            name: self.value(
                f"{place}.{name}" if isinstance(given, Mapping) else place,
                Parameter(name, "Count", (), True, None),
                values,
            )
            for name in values
        }
        default = read.get("default")
        return {name: read.get(name, default) for name in attacks}  # type: ignore[misc]

    def kept(
        self,
        place: str,
        study: Mapping[str, Any],
        attacks: tuple[str, ...],
        norm: str,
        epsilons: tuple[Epsilon, ...],
    ) -> dict[str, str]:
        """Read `keep_adversarial: {pgd_20: float32}`."""
        given = study.get("keep_adversarial")
        curve = study.get("curve")
        place = f"{place}.keep_adversarial"
        values = self.members(self.mapping(place, given))
        self.unknown(place, values, attacks)
        found = {name: self.choice(f"{place}.{name}", as_, KEPT) for name, as_ in values.items()}
        if "float16" in found.values():
            if norm != "linf":
                self.problem(
                    place,
                    f": float16 rounds every pixel, which can leave an {norm} ball; keep float32",
                )
            budgets = [one.value for one in epsilons]
            if isinstance(curve, Mapping) and curve.get("attack") in found:
                listed = self.epsilons(place, curve.get("epsilons"), norm)
                budgets += [one.value for one in listed]
            if min(budgets, default=1.0) < SMALLEST_FLOAT16:
                self.problem(
                    place,
                    f": float16 rounds a pixel by up to {SMALLEST_FLOAT16:g}, more than the "
                    "smallest budget; keep float32",
                )
        return found

    def trains(self, method: Entry | None) -> bool:
        """Whether a method needs a recipe; one that is not known is taken for a usual one."""
        known = method is not None and method.module in modules("methods")
        return not known or is_trained(method.module)  # type: ignore[union-attr]

    def text(self, place: str, given: Any) -> str:
        if not isinstance(given, str):
            self.problem(place, f": expected a text, got {given!r}")
        return " ".join(str(given).split())

    def recipes(
        self, place: str, given: Any, methods: tuple[str, ...], known: Mapping[str, Entry]
    ) -> dict[str, str]:
        """Read `recipe: name`, or `recipe: {default: name, trades: other}`, of what is trained."""
        if not methods and given is None:
            return {}
        if not isinstance(given, Mapping):
            name = self.one(f"{place}.recipe", given, known, "recipe")
            return dict.fromkeys(methods, name)
        self.unknown(f"{place}.recipe", given, ("default", *methods))
        found = {}
        for method in methods:
            recipe = given.get(method, given.get("default"))
            found[method] = self.one(f"{place}.recipe.{method}", recipe, known, "recipe")
        return found

    def curve(
        self, place: str, given: Any, attacks: Mapping[str, Entry], norm: str
    ) -> Curve | None:
        if given is None:
            return None
        values = self.mapping(f"{place}.curve", given)
        self.unknown(f"{place}.curve", values, ("attack", "epsilons"))
        return Curve(
            attack=self.one(f"{place}.curve.attack", values.get("attack"), attacks, "attack"),
            epsilons=self.epsilons(f"{place}.curve.epsilons", values.get("epsilons"), norm),
        )
