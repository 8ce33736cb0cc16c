"""The parameters of a plugin, read from its source."""

import importlib
import inspect
from pathlib import Path

import pytest

from advtrain.params import signatures
from advtrain.params.reader import ROLES
from advtrain.params.signatures import (
    Parameter,
    modules,
    needs_threat,
    per_example,
    signature,
    takes_threat,
)


def parameter(quantity: str, *, optional: bool = False, choices: tuple[str, ...] = ()) -> Parameter:
    return Parameter("p", quantity, choices, optional, None)


@pytest.mark.parametrize("kind", ["data", "models", "attacks", "methods", "certificates"])
def test_what_is_read_statically_is_what_python_sees(kind: str) -> None:
    assert modules(kind)
    for module in modules(kind):
        plugin = importlib.import_module(f"advtrain.{kind}.{module}")
        named = getattr(plugin, module, None) or getattr(plugin, signatures.camel_case(module))
        seen = {
            name: found.default
            for name, found in inspect.signature(named).parameters.items()
            if found.default is not inspect.Parameter.empty
        }
        assert {n: p.default for n, p in signature(kind, module).items()} == seen, module


def test_the_recipe_is_the_loops_keyword_parameters() -> None:
    from advtrain.training.loop import train

    seen = {
        name: found.default
        for name, found in inspect.signature(train).parameters.items()
        if found.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert {n: p.default for n, p in signature("training", "loop", "train").items()} == seen


def test_natural_training_needs_no_threat() -> None:
    assert not needs_threat("natural")
    assert needs_threat("trades")


@pytest.mark.parametrize("module", modules("methods"))
def test_the_flags_of_a_method_are_those_that_python_sees(module: str) -> None:
    found = importlib.import_module(f"advtrain.methods.{module}")
    method = getattr(found, signatures.camel_case(module))
    assert needs_threat(module) == method.needs_threat
    assert per_example(module) == method.per_example
    assert not set(ROLES) & signature("methods", module).keys()  # an entry's own keys


@pytest.mark.parametrize("module", modules("certificates"))
def test_a_certificate_is_asked_for_a_budget_if_it_takes_one(module: str) -> None:
    found = importlib.import_module(f"advtrain.certificates.{module}")
    assert takes_threat(module) == (
        "threat" in inspect.signature(getattr(found, module)).parameters
    )


def test_flags_in_a_class_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/flagged.py").write_text(
        "class Flagged:\n"
        "    needs_threat = False\n"
        '    per_example: ClassVar[tuple[str, ...]] = ("epsilon", "score")\n'
    )
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates/asked.py").write_text("def asked(model, x, y, threat, noise): ...")
    (tmp_path / "certificates/own.py").write_text("def own(model, x, y, noise): ...")
    (tmp_path / "certificates/maths.py").write_text("def maths(x): ...")
    monkeypatch.setattr(signatures, "PACKAGE", tmp_path)
    assert not needs_threat("flagged")
    assert per_example("flagged") == ("epsilon", "score")
    assert takes_threat("asked")
    assert not takes_threat("own")
    assert modules("certificates") == ["asked", "own"]


@pytest.mark.parametrize(
    ("quantity", "given", "read"),
    [
        ("Count", 3, 3),
        ("Whole", 0, 0),
        ("NonNegative", 0, 0.0),
        ("Positive", "1e-3", 1e-3),
        ("Share", "1/4", 0.25),
        ("Pixels", "8/255", 8 / 255),
        ("StepSize", "epsilon/4", "epsilon/4"),
        ("StepSize", "2/255", 2 / 255),
        ("Shares", [0.5, "3/4"], (0.5, 0.75)),
        ("bool", False, False),
        ("str", "x", "x"),
        ("File", "models/own.py", "models/own.py"),
    ],
)
def test_a_value_is_read_in_its_canonical_type(quantity: str, given: object, read: object) -> None:
    found = parameter(quantity).read(given)
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("quantity", "given", "message"),
    [
        ("Count", 0, "a whole number, 1 or more, got 0"),
        ("Count", 2.5, "got 2.5"),
        ("Count", True, "got True"),
        ("Whole", -1, "0 or more, got -1"),
        ("Positive", 0, "a number above 0, got 0"),
        ("NonNegative", "many", "a number, 0 or more, got 'many'"),
        ("Share", 1.5, r"in \[0, 1\], got 1.5"),
        ("Pixels", 8, "did you mean 8/255"),
        ("StepSize", 2, "did you mean 2/255"),
        ("StepSize", "eps/4", "neither pixel units"),
        ("Shares", 0.5, "a list of numbers"),
        ("Shares", [2], "got 2"),
        ("bool", "yes", "true or false, got 'yes'"),
        ("str", 3, "a text, got 3"),
        ("File", 3, "the path of a file, relative to the repository, got 3"),
        ("Count", None, "got nothing"),
    ],
)
def test_a_wrong_value_is_refused_in_words(quantity: str, given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameter(quantity).read(given)


def test_a_choice_and_an_optional_value() -> None:
    assert parameter("Literal", choices=("a", "b")).read("b") == "b"
    with pytest.raises(ValueError, match="one of a, b, got 'c'"):
        parameter("Literal", choices=("a", "b")).read("c")
    assert parameter("Count", optional=True).read(None) is None


def test_a_signature_that_cannot_be_checked_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "attacks"
    folder.mkdir()
    (folder / "odd.py").write_text("def odd(*, steps: float = 1): ...")
    (folder / "other.py").write_text("def odd(): ...")
    (folder / "computed.py").write_text("def computed(*, steps: Count = 2 + f()): ...")
    monkeypatch.setattr(signatures, "PACKAGE", tmp_path)
    with pytest.raises(TypeError, match="odd.py: parameter steps is annotated float"):
        signature("attacks", "odd")
    with pytest.raises(TypeError, match=r"defines neither other\(\) nor Other"):
        signature("attacks", "other")
    with pytest.raises(TypeError, match="the default of steps is not a literal"):
        signature("attacks", "computed")
    with pytest.raises(FileNotFoundError):
        signature("attacks", "absent")
    signature.cache_clear()
