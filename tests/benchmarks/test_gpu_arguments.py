"""The GPU's benchmarks where there is none: they can be imported, and refuse in plain words."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, scaling, training

Main = Callable[[list[str]], None]


@pytest.mark.parametrize(
    ("main", "arguments"),
    [(gpu.main, []), (training.main, ["--device", "cuda"]), (scaling.main, ["--device", "cuda"])],
    ids=["gpu", "training", "scaling"],
)
def test_without_a_gpu_they_refuse(
    main: Main, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch finds no CUDA device.*make bench"):
        main(arguments)


@pytest.mark.parametrize("main", [gpu.main, training.main, scaling.main])
def test_an_unknown_section_is_refused(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--only", "nonsense"])
    assert refused.value.code == 2
    assert "invalid choice: 'nonsense'" in capsys.readouterr().err


def test_data_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        gpu.main(["--data", str(tmp_path / "none")])
    assert refused.value.code == 2
    assert "expected the folder of a prepared data set" in capsys.readouterr().err


def test_idle_is_what_no_kernel_covers() -> None:
    assert gpu.idle_share([(0, 2), (1, 3), (7, 10)]) == pytest.approx(0.4)
    assert gpu.idle_share([(5, 9), (0, 10), (10, 12)]) == 0
