import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from advtrain.results.adversarial import FILE, SHOWN, Kept, chosen_examples
from advtrain.results.collect import Collected, collect, read_cell, read_collected, write_collected
from advtrain.results.files import DamagedFileError
from advtrain.results.schema import ADVERSARIAL
from tests.results import synthetic
from tests.results.synthetic import STUDY

CELL = "pgd_at-linf-0.2-s0"
ATTACK = "pgd_20-linf-0.2"


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    root = tmp_path_factory.mktemp("pictured")
    synthetic.write_pictured_tree(root)
    return collect(STUDY, synthetic.read_records(root), prepared=synthetic.prepared(root))


def one_cell(root: Path) -> Path:
    """Write one attacked cell with its images; return the attack's folder."""
    synthetic.write_training(root, STUDY, CELL, "pgd_at", 0.2, 0)
    synthetic.write_evaluation(root, STUDY, CELL, ATTACK, "pgd_at", 0.2, 0)
    synthetic.write_splits(root)
    synthetic.keep_images(root, STUDY, CELL, ATTACK)
    return root / "results/attack" / STUDY / CELL / ATTACK


def collected_cell(root: Path, names: Sequence[str] = (ATTACK,)) -> Collected:
    record = read_cell(root, STUDY, CELL, names)
    return collect(STUDY, [record], prepared=synthetic.prepared(root))


def test_every_evaluation_shows_the_same_examples(collected: Collected) -> None:
    rows = collected.adversarial.to_pylist()
    seen: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        seen.setdefault((row["cell"], row["attack"]), []).append(row["example"])
    # 4 evaluations by PGD of each of 10 cells.
    assert len(seen) == 40
    assert set(map(tuple, seen.values())) == {(1000, 1019, 1008, 1011)}
    assert list(seen) == sorted(seen)


def test_a_row_is_an_image_before_and_after(collected: Collected) -> None:
    row = next(
        row
        for row in collected.adversarial.to_pylist()
        if (row["cell"], row["attack"], row["example"]) == (CELL, ATTACK, 1008)
    )
    shape = row["channels"], row["height"], row["width"]
    assert shape == synthetic.SHAPE
    clean = np.frombuffer(row["clean"], "<f4").reshape(shape)
    assert (clean == (synthetic.pixels(8) / 255).astype(np.float32)).all()
    x_adv = np.frombuffer(row["x_adv"], "<f4").reshape(shape)
    assert (x_adv == synthetic.attacked(8, 0.2).astype(np.float32)).all()
    assert (row["label"], row["clean_prediction"], row["adversarial_prediction"]) == (0, 0, 1)
    names = row["label_name"], row["clean_prediction_name"], row["adversarial_prediction_name"]
    assert names == ("circle", "circle", "cross")


def test_the_order_of_the_cells_does_not_matter(tmp_path: Path, collected: Collected) -> None:
    synthetic.write_pictured_tree(tmp_path)
    records = synthetic.read_records(tmp_path)[::-1]
    again = collect(STUDY, records, prepared=synthetic.prepared(tmp_path))
    assert again.adversarial.equals(collected.adversarial)
    write_collected(collected, tmp_path / "collected")
    assert read_collected(tmp_path / "collected").adversarial.equals(collected.adversarial)


def kept(cell: str, wrong: Sequence[int], examples: Sequence[int], *, robust: bool) -> Kept:
    example = np.array(sorted(examples))
    label = np.zeros(len(example), dtype=np.int16)
    columns = {
        "example": example,
        "label": label,
        "clean_prediction": label + np.isin(example, wrong),
        "adversarial_prediction": label if robust else label + 1,
    }
    return Kept(cell, ATTACK, Path("nowhere"), pa.table(columns))


@pytest.mark.parametrize("robust", [True, False])
def test_the_first_that_most_cells_know_are_chosen_whatever_an_attack_does(robust: bool) -> None:
    order = np.array([7, 3, 9, 1, 5, 8, 2])
    cells = [
        kept("a", [7, 3], order, robust=robust),
        kept("b", [7], order, robust=False),
        # Attacked on fewer examples, and collapsed.
        kept("c", order, [7, 3, 1, 5, 8, 2], robust=robust),
    ]
    assert chosen_examples(cells, order) == [1, 5, 8, 2]  # 3 has one vote of three
    assert chosen_examples(cells[:1], order) == [9, 1, 5, 8]
    assert chosen_examples(cells[1:], order) == []  # one of two is not most
    assert SHOWN == 4


def test_two_attacks_on_a_cell_are_one_vote() -> None:
    order = np.arange(4)
    cells = [kept("a", [0], order, robust=True)] * 3 + [
        kept(name, [1], order, robust=True) for name in "bc"
    ]
    assert chosen_examples(cells, order) == [0, 2, 3]


def test_a_study_that_keeps_nothing_has_an_empty_table(tmp_path: Path) -> None:
    synthetic.write_tree(tmp_path)
    found = collect(STUDY, synthetic.read_records(tmp_path), prepared=tmp_path / "no such folder")
    assert found.adversarial.equals(ADVERSARIAL.empty_table())


def test_without_the_prepared_data_nothing_is_shown(tmp_path: Path) -> None:
    one_cell(tmp_path)
    found = collect(STUDY, [read_cell(tmp_path, STUDY, CELL, [ATTACK])])
    assert found.adversarial.num_rows == 0


def test_the_best_weights_are_not_shown(tmp_path: Path) -> None:
    one_cell(tmp_path)
    best = f"{ATTACK}-best"
    synthetic.write_evaluation(tmp_path, STUDY, CELL, best, "pgd_at", 0.2, 0, "best")
    synthetic.keep_images(tmp_path, STUDY, CELL, best)
    found = collected_cell(tmp_path, [best, ATTACK]).adversarial
    assert found["attack"].unique().to_pylist() == [ATTACK]


def test_half_precision_is_read_as_single(tmp_path: Path) -> None:
    one_cell(tmp_path)
    synthetic.keep_images(tmp_path, STUDY, CELL, ATTACK, "float16")
    rows = collected_cell(tmp_path).adversarial.to_pylist()
    # The first that this cell classifies right are not the first of the split.
    assert [row["example"] for row in rows] == [1019, 1008, 1011, 1002]
    x_adv = np.frombuffer(rows[0]["x_adv"], "<f4")
    expected = synthetic.attacked(19, 0.2).astype(np.float16).astype(np.float32)
    assert (x_adv == expected.ravel()).all()


def gone(folder: Path, _: Path) -> None:
    (folder / FILE).unlink()


def cut(folder: Path, _: Path) -> None:
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[:-8])


def of_other_examples(folder: Path, _: Path) -> None:
    images = {"x_adv": np.zeros((2, 1, 3, 3), np.float32), "example": np.array([1, 2])}
    save_file(images, folder / FILE)


def without_images(folder: Path, _: Path) -> None:
    save_file({"example": np.array([1, 2])}, folder / FILE)


def of_another_size(_: Path, root: Path) -> None:
    synthetic.keep_images(root, STUDY, CELL, ATTACK, shape=(1, 4, 4))


def split_gone(_: Path, root: Path) -> None:
    (synthetic.prepared(root) / "test.arrow").unlink()


def split_changed(_: Path, root: Path) -> None:
    path = synthetic.prepared(root) / "test.arrow"
    path.write_bytes(path.read_bytes().replace(synthetic.pixels(3).tobytes(), bytes(9)))


def split_of_other_labels(_: Path, root: Path) -> None:
    """Write a whole test split in which every example is of another class."""
    folder = synthetic.prepared(root)
    batch = pa.ipc.open_file(pa.memory_map(str(folder / "test.arrow"))).get_batch(0)
    labels = pa.array((batch["label"].to_numpy() + 1) % synthetic.CLASSES, pa.int16())
    changed = pa.RecordBatch.from_arrays(
        [batch["example"], labels, batch["image"]], schema=batch.schema
    )
    with pa.OSFile(str(folder / "other"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as to:
        to.write_batch(changed)
    (folder / "other").replace(folder / "test.arrow")
    facts = json.loads((folder / "dataset.json").read_text())
    content = (folder / "test.arrow").read_bytes()
    facts["sha256"]["test.arrow"] = hashlib.sha256(content).hexdigest()
    synthetic.write_json(folder / "dataset.json", facts)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (gone, FileNotFoundError, "adversarial.safetensors is not there; `dvc pull` fetches it"),
        (cut, DamagedFileError, "adversarial.safetensors: damaged, .*; delete .*pgd_20-linf-0.2 a"),
        (of_other_examples, DamagedFileError, "the examples of the rows beside it, has none 1019"),
        (without_images, DamagedFileError, "adversarial.safetensors: damaged, .*x_adv"),
        (of_another_size, DamagedFileError, "1019 is of the class 3 with 16 pixel .* 3 with 9;"),
        (split_of_other_labels, DamagedFileError, "is of the class 3 with 9 .* of the class 0 w"),
        (split_gone, FileNotFoundError, "test.arrow is not there; run the prepare step"),
        (split_changed, DamagedFileError, "test.arrow: damaged, sha256 is .* run the prepare st"),
    ],
)
def test_images_that_do_not_belong_to_the_rows_are_refused(
    tmp_path: Path, spoil: Callable[[Path, Path], None], error: type[Exception], message: str
) -> None:
    folder = one_cell(tmp_path)
    spoil(folder, tmp_path)
    with pytest.raises(error, match=message):
        collected_cell(tmp_path)
