"""Anybody's network: what is asked of the file, and what is said of one that does not fit."""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advtrain.models.external import external
from advtrain.models.normalisation import NormalizeEach

OWN = Path(__file__).parent / "own_network.py"
FACTS: dict[str, Any] = {"channels": 3, "size": 8, "classes": 5}
LINEAR = """
    from torch import nn

    def build({asked}):
        return nn.Sequential(nn.Flatten(), nn.Linear({inputs}, {outputs}))
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that writes a file of code and returns its path."""

    def write(code: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(textwrap.dedent(code))
        return str(path)

    return write


def linear(asked: str = "", inputs: str = "192", outputs: str = "5") -> str:
    return LINEAR.format(asked=asked, inputs=inputs, outputs=outputs)


def said(file: str, **given: Any) -> str:
    with pytest.raises(ValueError, match="external: ") as error:
        external(**{**FACTS, "file": file, **given})
    return str(error.value)


def test_a_file_imports_what_lies_beside_it_and_leaves_the_path_as_it_was() -> None:
    before = list(sys.path)
    model = external(**FACTS, file=str(OWN))
    assert sys.path == before
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert type(model[1][0]).__name__ == "Block"


def test_a_relative_path_is_one_of_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(OWN.parent)
    assert external(**FACTS, file="own_network.py")(torch.zeros(1, 3, 8, 8)).shape == (1, 5)


@pytest.mark.parametrize(
    ("asked", "inputs", "outputs"),
    [
        ("", "192", "5"),
        ("classes, channels, size", "channels * size**2", "classes"),
        ("num_classes, in_channels, image_size", "in_channels * image_size**2", "num_classes"),
        ("*, n_classes, num_channels=1, img_size=1", "num_channels * img_size**2", "n_classes"),
        ("num_classes=1000, width=192", "width", "num_classes"),
        ("*args, **kwargs", "192", "5"),
    ],
)
def test_a_function_gets_the_facts_that_it_asks_for(
    written: Callable[[str], str], asked: str, inputs: str, outputs: str
) -> None:
    model = external(**FACTS, file=written(linear(asked, inputs, outputs)))
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


def test_a_class_and_a_finished_module(written: Callable[[str], str]) -> None:
    file = written("""
        from torch import nn

        class Net(nn.Module):
            def __init__(self, num_classes=10):
                super().__init__()
                self.layer = nn.Linear(192, num_classes)

            def forward(self, x):
                return self.layer(x.flatten(1))

        finished = Net(5)
    """)
    for build in ("Net", "finished"):
        assert external(**FACTS, file=file, build=build)[1].layer.out_features == 5


def test_a_table_stands_in_front() -> None:
    torch.manual_seed(0)
    model = external(**FACTS, file=str(OWN), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)).eval()
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mean, std = (
        torch.tensor(one).reshape(1, 3, 1, 1) for one in ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    )
    assert torch.allclose(model(x), model[1]((x - mean) / std), atol=1e-6)
    assert isinstance(external(**FACTS, file=str(OWN))[0], nn.Identity)
    assert isinstance(external(**FACTS, file=str(OWN), normalisation="per_image")[0], NormalizeEach)


def test_the_look_at_the_network_changes_nothing(written: Callable[[str], str]) -> None:
    file = written("""
        import torch
        from torch import nn

        def build():
            net = nn.Sequential(
                nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(192, 5)
            )
            net[0].eval()
            return net
    """)
    torch.manual_seed(3)
    network = external(**FACTS, file=file)[1]
    drawn = torch.rand(1)
    assert [module.training for module in network] == [False, True, True, True]
    assert network[0].running_mean.eq(0).all()
    torch.manual_seed(3)
    nn.Linear(192, 5)
    assert torch.rand(1) == drawn  # no random number went into the look


def test_files_that_do_not_fit(written: Callable[[str], str], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"external: there is no file .*absent.py"):
        external(**FACTS, file=str(tmp_path / "absent.py"))
    assert said("") == "external: no file is given; name the Python file that builds the network"
    file = written("def make(): ...\ndef other(): ...")
    assert said(file).endswith("mine.py has no build; the functions in it: make, other")
    assert "build of " in said(written("build = 3"))
    assert "is int, expected a function" in said(written("build = 3"))
    assert "returns dict, expected an nn.Module" in said(written("def build(): return {}"))
    assert "mine.py fails: ZeroDivisionError: " in said(written("1 / 0"))
    told = said(written("import nonesuch_package"))
    assert "No module named 'nonesuch_package'; install it in this environment, or put it" in told
    told = said(written("def build(depth, num_classes=10): ..."))
    assert "needs depth, which nothing gives it (it may ask for channels, in_channels" in told
    told = said(written("def build(num_classes): raise KeyError('weights')"))
    assert "external: build(num_classes=5) of " in told
    assert "mine.py fails: KeyError: 'weights'" in told


def test_networks_that_do_not_fit(written: Callable[[str], str]) -> None:
    told = said(written(linear(outputs="1000")))
    assert "has 1000 classes, the data set has 5; let build ask for classes" in told
    told = said(written(linear(inputs="3072")))
    assert "cannot map images (2, 3, 8, 8) in [0, 1] on the CPU: RuntimeError" in told
    head = "import torch\nfrom torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n"
    tail = "\ndef build(): return Net()"
    told = said(written(head + "        return [x.flatten(1)[:, :5]]" + tail))
    assert "returns list, expected a tensor of logits; wrap it in a module" in told
    told = said(written(head + "        return x" + tail))
    assert "maps images (2, 3, 8, 8) to (2, 3, 8, 8), expected logits (2, 5)" in told
    told = said(written(head + "        return x.flatten(1)[:, :5].half()" + tail))
    assert "returns logits in torch.float16, expected float32; call .float()" in told


def test_tables_that_do_not_fit(written: Callable[[str], str]) -> None:
    file = written(linear())
    assert "expected std of 3 channels, got []" in said(file, mean=(0.5, 0.5, 0.5))
    assert "expected mean of 3 channels, got [0.5]" in said(file, mean=(0.5,), std=(0.5,))
    assert "std is above 0, got [0.5, 0.5, 0.0]" in said(file, mean=(0.5,) * 3, std=(0.5, 0.5, 0.0))
    table = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert "are two tables; take one out" in said(file, normalisation="cifar10", **table)
    file = written("""
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
                self.register_buffer("std", torch.full((3, 1, 1), 0.2))

            def forward(self, x):
                return ((x - self.mean) / self.std).flatten(1)[:, :5]

        def build():
            return Net()
    """)
    assert external(**FACTS, file=file) is not None
    assert "normalised twice; take out normalisation, mean and std" in said(file, **table)
