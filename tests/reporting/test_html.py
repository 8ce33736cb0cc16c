import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from advtrain.reporting.html import write_report
from advtrain.reporting.study import check_info
from advtrain.reporting.study_report import ReferenceRun, StudyReport
from advtrain.results.collect import collect, read_cell, write_collected
from tests.results import synthetic
from tests.results.synthetic import digest

CELL = "pgd_at-linf-0.1-s1"
VOID = {"meta", "link", "br", "img", "input", "hr", "path", "use"}
FAILURES = [
    {
        "cell": "pgd_at-linf-0.2-s2",
        "stage": "train",
        "state": "failed",
        "cause": "RuntimeError: <out> & about",
    },
    {"cell": "trades-linf-0.1-s0", "stage": "train", "state": "missing", "cause": "not run"},
]


class Page(HTMLParser):
    """What a page is made of; fails where its tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.texts: list[tuple[str, tuple[str, ...]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((data, tuple(self.open)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes, _ in self.elements if found == tag]

    def said(self) -> str:
        return " ".join(text for text, place in self.texts if not {"style", "script"} & set(place))


def write(folder: Path, drawn: Path, out: Path, **changes: Any) -> str:
    info = check_info(synthetic.study_info(**changes))
    write_report([StudyReport(info, folder, drawn)], out)
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(folder: Path, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(folder, drawn, tmp_path_factory.mktemp("page") / "index.html", failures=FAILURES)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_ids_are_unique_and_every_link_has_a_target(page: Page) -> None:
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [
        value
        for _, attributes, _ in page.elements
        for name, value in attributes.items()
        if name in ("href", "xlink:href")
    ]
    beside = [value for value in targets if value and value[0] != "#"]
    assert sum(value.startswith("runs.html#") for value in beside) == 10
    assert f"tables/fake/cards/{CELL}.md" in beside
    assert len(beside) == 10 + 10
    inner = [value for value in targets if value not in beside]
    assert inner
    assert all(value and value[0] == "#" and value[1:] in ids for value in inner)
    for _, attributes, _ in page.elements:
        if label := attributes.get("aria-labelledby"):
            assert label in ids


def test_nothing_is_loaded_from_elsewhere(text: str, page: Page) -> None:
    assert not {tag for tag, _, _ in page.elements} & {"link", "img", "iframe", "object", "embed"}
    assert not re.search(r"https?:|//[a-z]", text)
    assert not re.search(r"@import|@font-face|url\((?!#)", text)
    assert all("src" not in attributes for _, attributes, _ in page.elements)
    policy = next(a for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in (policy["content"] or "")


def test_tables_are_accessible(page: Page) -> None:
    tables = sum(tag == "table" for tag, _, _ in page.elements)
    captions = sum(tag == "caption" for tag, _, _ in page.elements)
    assert tables == captions > 2
    heads = [(attributes, place) for tag, attributes, place in page.elements if tag == "th"]
    assert {attributes.get("scope") for attributes, _ in heads} == {"col", "row"}
    assert all(("thead" in place) == (a["scope"] == "col") for a, place in heads)
    # A region that scrolls is reached by the keyboard, and named.
    for attributes in page.all("div"):
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0"
            assert attributes.get("aria-label") or attributes.get("aria-labelledby")


def test_figures_have_their_words(page: Page) -> None:
    drawings = page.all("svg")
    assert len(drawings) >= 3
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 40 for a in drawings)
    captions = [text for text, place in page.texts if "figcaption" in place and text.strip()]
    assert [text for text in captions if text.startswith("Figure")] == [
        f"Figure {number}." for number in range(1, len(drawings) + 1)
    ]


def test_attacked_images_are_part_of_the_page(
    pictured_folder: Path, pictured_drawn: Path, tmp_path: Path
) -> None:
    page = Page(write(pictured_folder, pictured_drawn, tmp_path / "index.html"))
    sources = [image["xlink:href"] or "" for image in page.all("image")]
    assert len(sources) >= 3 * 4 * 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    policy = next(a for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "img-src data:" in (policy["content"] or "")
    said = " ".join(page.said().split())
    assert "Test images under pgd_20" in said


def test_the_page_is_in_a_language_for_any_screen_and_either_scheme(text: str, page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    assert "prefers-color-scheme: dark" in text


def test_each_number_of_the_results_links_to_its_lineage(page: Page) -> None:
    links = [
        a
        for tag, a, place in page.elements
        if tag == "a" and "td" in place and (a["href"] or "").startswith("#lineage-")
    ]
    # Six rows of five accuracies, four methods with two accuracies and two differences, six worst
    # cases that are compared, six claims; the failed one has none.
    assert len(links) == 30 + 16 + 6 + 6
    assert links[10] == {
        "href": "#lineage-fake-pgd_at-linf-0.1",
        "title": "95 % interval 64.0 to 94.8 %, n = 20, seeds: 2",
    }
    details = {a.get("id"): place for tag, a, place in page.elements if tag == "details"}
    assert "details" not in details["lineage-fake-pgd_at-linf-0.1"]
    assert "details" in details["lineage-fake-pgd_at-linf-0.1-s1"]


def test_one_seed_links_to_its_cell(tmp_path: Path) -> None:
    synthetic.write_training(tmp_path, "fake", "natural-s0", "natural", None, 0)
    name = "pgd_20-linf-0.1"
    synthetic.write_evaluation(tmp_path, "fake", "natural-s0", name, "natural", None, 0)
    record = read_cell(tmp_path, "fake", "natural-s0", [name])
    write_collected(collect("fake", [record]), tmp_path / "collected")
    page = Page(write(tmp_path / "collected", tmp_path, tmp_path / "index.html"))
    assert "#lineage-fake-natural-s0" in {a["href"] for a in page.all("a")}
    assert page.all("svg") == []


def test_the_lineage_says_where_a_number_comes_from(page: Page) -> None:
    cell = CELL
    said = page.said()
    key = digest(f"train {cell}")[:16]
    for text in (
        key,
        f"tags.\"advtrain.key\" = '{key}'",
        f"snakemake --cores all -- .pipeline/fresh/train/fake/{cell}",
        f"snakemake --cores all -- .pipeline/fresh/attack/fake/{cell}/pgd_20-linf-0.3",
        digest(f"last {cell}"),
        digest("blobs")[:16],
        digest("train code")[:16],
        digest("attack code")[:16],
        digest("data")[:16],
        digest(f"attack {cell} cw_20-linf-0.1")[:16],
        "method.parameters.steps",
        "threat.epsilon",
        "prepare:blobs",
    ):
        assert text in said


def test_a_partial_report_says_so_and_why(text: str, page: Page) -> None:
    assert "<strong>incomplete</strong>" in text
    assert "(incomplete) Adversarial training" in page.said()
    said = " ".join(page.said().split())
    assert "failed: RuntimeError: <out> & about (pgd_at-linf-0.2-s2)" in said
    assert "missing: not run (trades-linf-0.1-s0)" in said
    assert "2 of 3" in said
    assert "<out>" not in text


def test_flags_stand_below_their_row(page: Page) -> None:
    flags = [
        text
        for text, place in page.texts
        if "tbody" in place and place[-1] == "span" and ":" in text
    ]
    failed = "failed: RuntimeError: <out> & about"
    overfitted = "catastrophic overfitting: robust accuracy 90.0 % under fgsm, 0.0 % under cw_20"
    verdicts = [
        "cost High: not decided. Not compared: TRADES, MART, Fast-AT, AWP, Consistency AT",
        "gain High: not decided. Not compared: Fast-AT, Consistency AT",
    ]
    results = [f"{failed} (seed 2)", f"{overfitted} (seed 1)", "missing: not run"]
    claims = [
        "not comparable, theirs → ours: attacked images: all, beside the clean ones → 100.0 % of "
        "them, in place of the clean ones"
    ]
    methods = [*verdicts, f"{failed} (seed 2)", *verdicts, *results[1:]]
    audits = [
        "audit failed: catastrophic overfitting, fgsm-linf-0.2 leaves 90.0 %, cw_20-linf-0.2 "
        "0.0 % (seed 1)"
    ]
    assert flags == [*results, *claims, *methods, *audits, failed, "missing: not run"]


def test_a_failed_audit_is_among_the_flags_of_the_study(page: Page) -> None:
    listed = [text for text, place in page.texts if place[-2:] == ("dl", "dd")]
    assert any(text.startswith("audit failed: catastrophic overfitting") for text in listed)


def test_the_facts_count_the_failed_audits(
    page: Page, folder: Path, drawn: Path, tmp_path: Path
) -> None:
    assert "1 failed" in [text for text, place in page.texts if place[-1:] == ("dd",)]
    strict = write(folder, drawn, tmp_path / "index.html", strict=True)
    assert "1 failed; the study is strict: no table was written" in strict


def test_every_audit_has_its_evidence_in_words_for_all_readers(page: Page) -> None:
    titles = {
        a["title"]
        for tag, a, place in page.elements
        if tag == "td" and "title" in a and "tr" in place
    }
    said = " ".join(page.said().split())
    assert "fgsm-linf-0.2 leaves 65.0 %, cw_20-linf-0.2 50.0 %" in said
    assert titles
    assert all(title and title in said for title in titles)
    rows = [a.get("class") for a in page.all("td") if "fail" in (a.get("class") or "").split()]
    assert len(rows) == 1


def test_the_legend_says_of_a_collapse_what_the_flag_says(text: str) -> None:
    assert "diverged, or the clean accuracy is not distinguishable from chance." in text


def test_a_whole_report_has_no_banner(folder: Path, drawn: Path, tmp_path: Path) -> None:
    text = write(folder, drawn, tmp_path / "index.html")
    assert "<strong>incomplete</strong>" not in text
    assert "(incomplete)" not in text


def test_the_same_rows_give_the_same_page(
    text: str, folder: Path, drawn: Path, tmp_path: Path
) -> None:
    assert write(folder, drawn, tmp_path / "index.html", failures=FAILURES) == text


def test_a_study_of_which_nothing_was_collected_is_shown_as_failed(
    folder: Path, drawn: Path, tmp_path: Path
) -> None:
    failures = [
        {"cell": "prepare:blobs", "stage": "prepare", "state": "failed", "cause": "no network"},
        {"cell": "natural-s0", "stage": "train", "state": "missing", "cause": "no data"},
    ]
    whole = check_info(synthetic.study_info())
    broken = check_info(synthetic.study_info(name="other", title="Another", failures=failures))
    out = tmp_path / "index.html"
    write_report(
        [StudyReport(whole, folder, drawn), StudyReport(broken, tmp_path / "none", tmp_path)], out
    )
    page = Page(out.read_text(encoding="utf-8"))
    assert {"#study-fake", "#study-other", "#failures-other"} <= {a["href"] for a in page.all("a")}
    assert "no network" in page.said()
    assert "none applied" in page.said()
    ids = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_rich_study_shows_its_tables_folded_and_its_certificates(
    rich_folder: Path, drawn: Path, tmp_path: Path
) -> None:
    page = Page(write(rich_folder, drawn, tmp_path / "a.html", certificates=["ibp"]))
    heads = [text for text, place in page.texts if place[-2:] == ("summary", "h3")]
    assert heads == [
        *("Do the published claims hold here?", "What robustness costs and gains"),
        "The best epoch against the last",
        *("Certified accuracy", "Which method withstood more", "What each attack breaks"),
        "Audits: can these accuracies be believed?",
    ]
    numbers = [text for text, place in page.texts if place[-1:] == ("b",) and "caption" in place]
    assert numbers == [f"Table {number}." for number in range(1, 10)]
    folds = [a for a in page.all("details") if a.get("class") == "fold"]
    assert all("open" in fold for fold in folds)
    said = " ".join(page.said().split())
    assert "15 of 20 robust" in said
    assert "7 of 20 certified" in said
    assert "18 of 20 right" in said
    cell = "pgd_at-linf-0.1-s0"
    assert f".pipeline/fresh/certify/fake/{cell}/smoothing_025-l2" in said
    assert digest(f"certify {cell} ibp-linf-0.1")[:16] in said
    # The flag stands in two tables, and once in the list, beside what the audits say of it.
    flagged = "robust overfitting: worst-case accuracy 85.0 % at the best epoch, 55.0 % at the last"
    places = [place[-1] for text, place in page.texts if text == f"{flagged} (seed 0)"]
    assert places == ["span", "span", "dd"]
    again = write(rich_folder, drawn, tmp_path / "b.html", certificates=["ibp"])
    assert again == (tmp_path / "a.html").read_text(encoding="utf-8")


def test_a_table_without_rows_is_not_shown(page: Page) -> None:
    heads = [text for text, place in page.texts if place[-2:] == ("summary", "h3")]
    assert heads == [
        "Do the published claims hold here?",
        *("What robustness costs and gains", "Which method withstood more"),
        *("What each attack breaks", "Audits: can these accuracies be believed?"),
    ]
    assert "This study has no certificates." not in page.said()


def test_what_has_nothing_to_warn_of_stays_folded(tmp_path: Path) -> None:
    cell = "natural-s0"
    synthetic.write_training(tmp_path, "fake", cell, "natural", None, 0)
    names = ("pgd_20-linf-0.1", "pgd_20-linf-0.1-best")
    for name, weights in zip(names, ("last", "best"), strict=True):
        synthetic.write_evaluation(tmp_path, "fake", cell, name, "natural", None, 0, weights)
    record = read_cell(tmp_path, "fake", cell, names)
    write_collected(collect("fake", [record]), tmp_path / "collected")
    page = Page(write(tmp_path / "collected", tmp_path, tmp_path / "index.html"))
    folds = [a for a in page.all("details") if a.get("class") == "fold"]
    assert len(folds) == 2  # the selection and the audits
    assert all("open" not in fold for fold in folds)


def test_a_reference_run_stands_beside_the_run_of_its_study(
    folder: Path, rich_folder: Path, drawn: Path, tmp_path: Path
) -> None:
    info = check_info(synthetic.study_info())
    for kept, moves in ((folder, False), (rich_folder, True)):
        beside = (ReferenceRun("fake@cpu", "a device, on a day", {}, kept),)
        out = tmp_path / "index.html"
        write_report([StudyReport(info, folder, drawn, beside=beside)], out)
        page = Page(out.read_text(encoding="utf-8"))
        said = " ".join(page.said().split())
        assert "Beside the reference run on a device, on a day" in said
        tables = [a.get("class") for a in page.all("table")]
        assert ("sheet moved-fake-cpu" in tables) == moves


def test_the_sources_of_published_numbers_can_be_read_without_a_mouse(
    folder: Path, drawn: Path, tmp_path: Path
) -> None:
    published = {"natural": ["free/natural"], "pgd_at": ["free/pgd_at"]}
    page = Page(write(folder, drawn, tmp_path / "index.html", published=published))
    said = " ".join(page.said().split())
    assert "Published beside reproduced" in said
    titles = {a["title"] or "" for a in page.all("td") if a.get("title")}
    assert any("not stated by the source" in title for title in titles)
    assert all(title in said for title in titles)
    assert "Departs from free/pgd_at" in said


def test_the_parts_of_a_study_are_listed_in_their_order(page: Page) -> None:
    links = [a["href"] for tag, a, place in page.elements if tag == "a" and place[-1] == "nav"]
    parts = ("results", "claims", "figures", "audits", "costs", "failures", "lineage")
    assert links == [f"#{part}-fake" for part in parts]
    places = [a.get("id") for tag, a, _ in page.elements if tag == "h3"]
    assert [f"#{place}" for place in places if f"#{place}" in links] == links
