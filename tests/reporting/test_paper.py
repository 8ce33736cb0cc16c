import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from advtrain.reporting.pages import TEMPLATES
from advtrain.reporting.paper import Part, write_paper
from advtrain.reporting.prose import Facts, Leader, study_facts
from advtrain.reporting.shown import select
from advtrain.reporting.study import check_info
from advtrain.reporting.study_report import StudyReport
from advtrain.reporting.tables import sheets, write_tables
from advtrain.results.collect import Collected, collect, read_cell, write_collected
from pipeline.paper import build_paper
from tests.reporting.typesetting import needs_typesetting
from tests.results import synthetic

VAL = re.compile(r"\\val\{([^}]*)\}")


def write(folder: Path, out: Path, **changes: Any) -> str:
    info = check_info(synthetic.study_info(**changes))
    written = write_paper([StudyReport(info, folder, out / "figures/fake")], out)
    assert written == [out / "paper.tex", out / "numbers/fake.tex"]
    return written[0].read_text(encoding="utf-8")


def defined(out: Path, study: str = "fake") -> dict[str, str]:
    text = (out / f"numbers/{study}.tex").read_text(encoding="utf-8")
    return dict(re.findall(r"^\\defval\{([^}]*)\}\{(.*)\}$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("reports")
    write(folder, found)
    return found


@pytest.fixture(scope="module")
def text(out: Path) -> str:
    return (out / "paper.tex").read_text(encoding="utf-8")


def test_no_number_is_typed_in_the_template() -> None:
    source = (TEMPLATES / "paper.tex").read_text(encoding="utf-8")
    body = source.split(r"\begin{document}")[1]
    typed = re.sub(r"<<.*?>>|<%.*?%>", "", body, flags=re.DOTALL)
    # What is no result: how much room a table needs, and the keys of works.
    typed = re.sub(r"\\roomfor\{\d+\}|\\cite\{\w+\}|\\hspace\{\d+em\}", "", typed)
    assert re.findall(r".*\d.*", typed) == []


def test_every_number_in_the_prose_is_one_of_the_study(out: Path, text: str) -> None:
    used = VAL.findall(text)
    assert "fake/results/fgsm_mixed@0.1/0.1/worst_case_accuracy" in used
    assert set(used) <= set(defined(out))


def test_the_numbers_are_those_of_the_tables(out: Path) -> None:
    found = defined(out)
    # As tests/reporting/test_tables.py has them in the Markdown table.
    place = "fake/results/pgd_at@0.1/0.1"
    assert found[f"{place}/clean_accuracy"] == "85.0"
    assert found[f"{place}/clean_accuracy_spread"] == "7.1"
    assert found[f"{place}/worst_case_accuracy"] == "50.0"
    assert found[f"{place}/worst_case_accuracy_low"] == "29.9"
    assert found[f"{place}/pgd_20_robust_accuracy"] == "55.0"
    assert found["fake/results/natural/0.1/worst_case_accuracy"] == "5.0"
    assert found["fake/counts/cells"] == "10"
    assert found["fake/counts/chance"] == "25.0"


def test_the_prose_names_who_leads_and_who_cannot_be_told_apart(text: str) -> None:
    prose = " ".join(text.split())
    assert (
        r"At $\varepsilon = 0.1$, \val{fake/counts/linf-0.1} methods met every attack. None "
        r"withstands more in the worst case than \texttt{fgsm\_mixed}" in prose
    )
    assert r"It cannot be told apart from \texttt{pgd\_at}." in prose
    assert r"Each method was trained with \val{fake/counts/seeds_most} seeds." in prose


def test_who_is_beaten_by_the_paired_test_is_not_said_to_withstand_more(
    collected: Collected,
) -> None:
    info = check_info(synthetic.study_info())
    laid = sheets(select(collected, info))
    pairs = laid["comparisons"].data
    place = pairs.column_names.index("better")

    def leader(winner: str) -> Leader:
        decided = pairs.set_column(place, "better", pa.array([winner] * len(pairs)))
        shown = {**laid, "comparisons": replace(laid["comparisons"], data=decided)}
        return study_facts(shown, collected, info)[0].leaders[0]

    one, other = leader("one"), leader("other")
    assert one.better + one.worse
    assert (one.better, one.worse) == (other.worse, other.better)
    assert one.same == other.same == ()


def test_flagged_trainings_are_named_with_their_budget(text: str) -> None:
    prose = " ".join(text.split())
    assert r"\item catastrophic overfitting: \texttt{fgsm\_mixed@0.2}." in prose
    abstract = prose.split(r"\end{abstract}")[0]
    assert r"\val{fake/counts/flagged} are flagged: " in abstract
    assert "catastrophic overfitting" in abstract


def test_works_are_listed_that_are_cited_and_no_others(text: str) -> None:
    cited = {key for keys in re.findall(r"\\cite\{([^}]*)\}", text) for key in keys.split(",")}
    listed = re.findall(r"\\bibitem\{(\w+)\}", text)
    assert listed == sorted(cited)
    assert "kurakin2017" in listed
    assert "wang2020" not in listed


def test_the_same_rows_make_the_same_bytes(folder: Path, out: Path, tmp_path: Path) -> None:
    write(folder, tmp_path)
    for name in ("paper.tex", "numbers/fake.tex"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_a_study_without_cells_is_there_with_its_failures(tmp_path: Path) -> None:
    failures = [
        {"cell": "pgd_at-linf-0.1-s0", "stage": "train", "state": "failed", "cause": "100 % lost"}
    ]
    found = write(tmp_path / "nowhere", tmp_path, failures=failures, title="Nothing & all")
    prose = " ".join(found.split())
    assert r"\section{Nothing \& all}" in prose
    assert "No cell of this study has numbers." in prose
    assert r"\texttt{pgd\_at-linf-0.1-s0} (train, failed): 100 \% lost" in prose
    assert r"\studytable{" not in found.split(r"\begin{document}")[1]


def test_without_natural_training_nothing_is_compared_with_it(tmp_path: Path) -> None:
    cell = "pgd_at-linf-0.1-s0"
    synthetic.write_training(tmp_path, "fake", cell, "pgd_at", 0.1, 0)
    names = [f"{attack}-linf-0.1" for attack in synthetic.ATTACKS]
    for name in names:
        synthetic.write_evaluation(tmp_path, "fake", cell, name, "pgd_at", 0.1, 0)
    write_collected(collect("fake", [read_cell(tmp_path, "fake", cell, names)]), tmp_path / "rows")
    prose = " ".join(write(tmp_path / "rows", tmp_path).split())
    assert r"None withstands more in the worst case than \texttt{pgd\_at}" in prose
    assert "Natural training keeps" not in prose
    assert "natural training has" not in prose
    assert "told apart from" not in prose.split(r"\subsection{Results}")[1]
    assert "Each method was trained with one seed." in prose


def test_certified_studies_do_not_say_that_nothing_is_proven(
    rich_folder: Path, text: str, tmp_path: Path
) -> None:
    found = write(rich_folder, tmp_path, certificates=["ibp", "smoothing_025"])
    assert "nothing is certified" in text
    assert "nothing is certified" not in found
    assert r"\subsection{Certified accuracy}" in found


@needs_typesetting
def test_the_paper_can_be_set_the_same_bytes_wherever_it_lies(
    folder: Path, drawn: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "a", tmp_path / "b/c"
    write_tables(folder, synthetic.study_info(), here / "tables/fake")
    shutil.copytree(drawn, here / "figures/fake")
    write(folder, here)
    shutil.copytree(here, there)
    assert build_paper(here) == here / "paper.pdf"
    assert build_paper(there) == there / "paper.pdf"
    first, second = ((root / "paper.pdf").read_bytes() for root in (here, there))
    assert first == second
    assert first.startswith(b"%PDF-")


def test_published_numbers_are_counted_by_their_verdict(folder: Path, tmp_path: Path) -> None:
    text = write(folder, tmp_path, published={"pgd_at": ["free/pgd_at"]})
    prose, found = " ".join(text.split()), defined(tmp_path)
    assert r"Of \val{fake/counts/published} published numbers:" in prose
    verdicts = re.findall(r"([a-z ]+): (\\val\{fake/counts/published/\w+\})", prose)
    counts = [int(found[VAL.findall(value)[0]]) for _, value in verdicts]
    assert sum(counts) == int(found["fake/counts/published"]) > 0
    assert "are reproduced" not in prose
    assert "no published number is compared with ours" in prose
    assert r"\studytable{tab:fake:published}" in text


def test_of_many_methods_the_number_stands_in_place_of_the_names() -> None:
    part = Part(check_info(synthetic.study_info()), {"counts/same": "9"}, Facts())
    assert part.named(["trades", "mart"], "counts/same") == r"\texttt{trades} and \texttt{mart}"
    assert part.named(["pgd_at"] * 9, "counts/same") == r"\val{fake/counts/same} others"


def test_a_number_that_is_not_there_is_an_error_by_name() -> None:
    part = Part(check_info(synthetic.study_info()), {}, Facts())
    with pytest.raises(ValueError, match="the paper wants counts/same of fake"):
        part.val("counts/same")


def test_what_failed_is_named_and_leaves_the_rest(folder: Path, tmp_path: Path) -> None:
    failures = [
        {"cell": f"pgd_at-linf-0.2-s{seed}", "stage": "train", "state": "failed", "cause": "lost"}
        for seed in (2, 3)
    ]
    prose = " ".join(write(folder, tmp_path, failures=failures).split())
    assert defined(tmp_path)["fake/counts/failures"] == "2"
    assert r"\item failed: \texttt{pgd\_at@0.2}." in prose
    assert r"\texttt{pgd\_at-linf-0.2-s3} (train, failed): lost" in prose
    seeds = (
        r"Methods were trained with \val{fake/counts/seeds_least} to \val{fake/counts/seeds_most}"
    )
    assert seeds in prose


def test_without_attacks_no_worst_case_is_claimed(tmp_path: Path) -> None:
    cell = "pgd_at-linf-0.1-s0"
    synthetic.write_training(tmp_path, "fake", cell, "pgd_at", 0.1, 0)
    write_collected(collect("fake", [read_cell(tmp_path, "fake", cell, [])]), tmp_path / "rows")
    prose = " ".join(write(tmp_path / "rows", tmp_path, attacks=[]).split())
    assert "No cell met every attack of the study at one budget" in prose
    assert "so no worst case is reported" in prose
    assert "The attacks" not in prose
