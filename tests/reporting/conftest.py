from pathlib import Path

import pytest

from advtrain.reporting.figures import write_figures
from advtrain.reporting.measure import Unit, measure, units
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected, collect, write_collected
from tests.results import synthetic


@pytest.fixture(scope="session")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    root = tmp_path_factory.mktemp("tree")
    synthetic.write_tree(root)
    return collect(synthetic.STUDY, synthetic.read_records(root))


@pytest.fixture(scope="session")
def folder(collected: Collected, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("collected")
    write_collected(collected, found)
    return found


@pytest.fixture(scope="session")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    """The study with the best weights and the certificates of one method."""
    root = tmp_path_factory.mktemp("rich")
    synthetic.write_rich_tree(root)
    return collect(synthetic.STUDY, synthetic.read_rich_records(root))


@pytest.fixture(scope="session")
def rich_folder(rich: Collected, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("rich_collected")
    write_collected(rich, found)
    return found


@pytest.fixture(scope="session")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    """The study with all that its pictures are made of."""
    root = tmp_path_factory.mktemp("pictured")
    synthetic.write_pictured_tree(root)
    records = synthetic.read_pictured_records(root)
    return collect(synthetic.STUDY, records, prepared=synthetic.prepared(root))


@pytest.fixture(scope="session")
def pictured_folder(pictured: Collected, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pictured_collected")
    write_collected(pictured, found)
    return found


@pytest.fixture(scope="session")
def grouped(collected: Collected) -> list[Unit]:
    return units(measure(collected), check_info(synthetic.study_info()))


@pytest.fixture(scope="session")
def drawn(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("figures")
    write_figures(folder, synthetic.study_info(), out)
    return out


@pytest.fixture(scope="session")
def pictured_drawn(pictured_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pictured_figures")
    write_figures(pictured_folder, synthetic.study_info(), out)
    return out
