"""What a reader can do on the page."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from tests.browser.conftest import PUBLISHED, REFERENCE, Open
from tests.results.synthetic import digest

pytestmark = pytest.mark.browser

CELL = "pgd_at-linf-0.1-s1"
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(20, 24, 29)"
PHONE = 390


def results(page: Page) -> Locator:
    return page.locator("#results-fake ~ .scroll table.results").first


def rows(table: Locator) -> list[str]:
    """The shown rows: method, budgets, clean accuracy, the flags, or an empty text for none."""
    return table.locator("tbody > tr:not(.notes):not([hidden])").evaluate_all(
        """rows => rows.map(row => {
            const cells = [...row.cells].slice(0, 4).map(cell => cell.childNodes[0]?.textContent);
            const next = row.nextElementSibling;
            const below = next?.className === "notes" && !next.hidden ? next.textContent : "";
            return [...cells, below.trim().slice(0, 12)].join(" | ");
        })"""
    )


def head(table: Locator, text: str) -> Locator:
    return table.locator("thead th", has_text=text)


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def test_a_column_is_sorted_turned_and_restored(open_page: Open) -> None:
    table = results(open_page())
    written = rows(table)
    clean = head(table, "clean")
    numbers = [(written[0], 100.0), (written[2], 85.0), (written[4], 100.0)]
    assert all(f"| {value:.1f}" in row for row, value in numbers)
    clean.locator("button").click()
    assert clean.get_attribute("aria-sort") == "ascending"
    # The lowest first, equal ones as they were, what has no number last.
    assert rows(table) == [*written[2:4], *written[0:2], *written[4:]]
    clean.locator("button").click()
    assert clean.get_attribute("aria-sort") == "descending"
    assert rows(table) == [*written[0:2], *written[4:6], *written[2:4], written[6]]
    clean.locator("button").click()
    assert clean.get_attribute("aria-sort") is None
    assert rows(table) == written


def test_flags_stay_below_their_row(open_page: Open) -> None:
    table = results(open_page())
    flagged = {row.rsplit(" | ", 1)[0]: row for row in rows(table) if not row.endswith("| ")}
    assert any("catastrophic" in row for row in flagged.values())
    head(table, "method").locator("button").click()
    head(table, "method").locator("button").click()
    assert rows(table)[0].startswith("trades")
    assert {row for row in rows(table) if not row.endswith("| ")} == set(flagged.values())


def test_a_head_is_sorted_by_the_keyboard_and_one_at_a_time(open_page: Open) -> None:
    page = open_page()
    table = results(page)
    head(table, "clean").locator("button").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    sorted_by = table.locator("thead th[aria-sort]")
    assert sorted_by.all_text_contents() == [head(table, "fgsm, %").text_content()]


def test_names_are_sorted_as_numbers_where_they_count(open_page: Open) -> None:
    page = open_page()
    texts = ["pgd_100", "pgd_20", "–", "8/255", "12/255", "−3.1", "0.5 ± 0.1", "0.45"]
    order = page.evaluate("texts => texts.sort(compare)", texts[:2])
    assert order == ["pgd_20", "pgd_100"]
    assert page.evaluate("texts => texts.sort(compare)", texts[3:]) == [
        *("−3.1", "8/255", "12/255", "0.45", "0.5 ± 0.1")
    ]


def test_a_table_is_filtered_by_method_budget_and_flag(open_page: Open) -> None:
    page = open_page()
    table = results(page)
    box, count = (
        page.locator(f"#results-fake ~ .tools {what}").first for what in ("input", "output")
    )
    whole = rows(table)
    assert count.text_content() == f"{len(whole)} rows"
    for words, fits in (
        ("PGD_AT 0.2", lambda row: "pgd_at | 0.2" in row),
        ("catastrophic", lambda row: "catastrophic" in row),
        ("64.0", lambda row: False),  # the end of an interval, not a name
        ("", lambda row: True),
    ):
        box.fill(words)
        assert rows(table) == [row for row in whole if fits(row)], words
    box.fill("natural")
    assert count.text_content() == f"2 of {len(whole)} rows"
    assert table.locator("tr.notes:not([hidden])").count() == 0
    head(table, "attacked").locator("button").click()
    assert len(rows(table)) == 2


def test_every_table_of_numbers_can_be_sorted_and_filtered(open_page: Open) -> None:
    page = open_page()
    tables = page.locator("table.sheet")
    assert tables.count() > 10
    assert page.locator(".tools input[type=search]").count() == tables.count()
    for heads in tables.locator("thead").all():
        assert heads.locator("th > button").count() == heads.locator("th").count()


def test_a_number_leads_to_its_lineage_and_back(open_page: Open) -> None:
    page = open_page()
    link = results(page).locator("tbody tr", has_text="pgd_at").first.locator("td a").nth(2)
    link.click()
    group = page.locator("#lineage-fake-pgd_at-linf-0\\.1")
    assert group.get_attribute("open") is not None
    assert group.locator("> details.cell").count() == 2
    # The number is PGD's at 0.1 on the last weights: that evaluation is marked, in either seed.
    asked = group.locator("tr.asked").evaluate_all("rows => rows.map(row => row.dataset.name)")
    assert asked == 2 * ["pgd_20-linf-0.1"]
    group.get_by_role("button", name="Back to the number").click()
    assert link.evaluate("link => link === document.activeElement")


def test_the_lineage_says_what_the_number_comes_from(open_page: Open) -> None:
    page = open_page(f"#lineage-fake-{CELL}")
    cell = page.locator(f"[id='lineage-fake-{CELL}']")
    assert cell.is_visible()
    said = " ".join(cell.inner_text().split())
    key = digest(f"train {CELL}")[:16]
    for text in (
        *(CELL, key, digest(f"last {CELL}"), digest("blobs")[:16], digest("train code")[:16]),
        f"snakemake --cores all -- .pipeline/fresh/train/fake/{CELL}",
        f"snakemake --cores all -- .pipeline/fresh/attack/fake/{CELL}/pgd_20-linf-0.3",
    ):
        assert text in said, text
    run = cell.get_by_role("link", name=f"fake / {CELL}")
    assert run.get_attribute("href") == f"runs.html#{key}"
    departs = page.locator("[id='lineage-fake-pgd_at-linf-0.1'] > .scroll table").first
    assert PUBLISHED in departs.locator("caption").inner_text()
    fields = departs.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert ["epsilon", "8/255", "0.1"] in fields
    assert "steps" not in {field for field, *_ in fields}  # 7 in the paper, and here


def test_a_link_opens_what_it_leads_to_and_no_other(open_page: Open) -> None:
    page = open_page(f"#lineage-fake-{CELL}")
    opened = page.locator("details[id][open]").evaluate_all("all => all.map(one => one.id)")
    assert opened == ["lineage-fake-pgd_at-linf-0.1", f"lineage-fake-{CELL}"]


def test_a_command_is_copied(open_page: Open) -> None:
    page = open_page(f"#lineage-fake-{CELL}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    command = page.locator(f"[id='lineage-fake-{CELL}'] code.command").first
    button = page.locator(f"[id='lineage-fake-{CELL}'] button.copy").first
    button.click()
    page.wait_for_function("button => button.textContent === 'Copied'", arg=button.element_handle())
    assert page.evaluate("navigator.clipboard.readText()") == command.text_content()


def test_without_a_clipboard_the_command_is_selected(open_page: Open) -> None:
    page = open_page(f"#lineage-fake-{CELL}")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    page.locator(f"[id='lineage-fake-{CELL}'] button.copy").first.click()
    page.wait_for_function("getSelection().toString().startsWith('snakemake')")


@pytest.mark.parametrize(
    ("scheme", "own", "other"), [("light", LIGHT, DARK), ("dark", DARK, LIGHT)]
)
def test_the_theme_is_the_system_s_or_the_reader_s(
    open_page: Open, scheme: str, own: str, other: str
) -> None:
    page = open_page(scheme=scheme)
    assert background(page) == own
    ink = page.locator("figure svg path").first
    before = ink.evaluate("path => getComputedStyle(path).stroke")
    page.get_by_role("button", name="theme").click()
    assert background(page) == other
    assert ink.evaluate("path => getComputedStyle(path).stroke") != before
    page.reload()
    assert background(page) == other
    page.get_by_role("button", name="theme").click()
    assert background(page) == own


def left(place: Locator) -> float:
    return float(place.evaluate("place => place.getBoundingClientRect().x"))


def contrast(page: Page, selector: str) -> float:
    """The contrast of an element's text against the first background below it, as WCAG counts."""
    return float(
        page.locator(selector).first.evaluate(
            """element => {
            const part = c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
            const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
            const read = colour => colour.match(/[\\d.]+/g).map(Number);
            const luminance = colour => light(read(colour).slice(0, 3).map(c => c / 255));
            let place = element;
            const shade = () => getComputedStyle(place).backgroundColor;
            while ((read(shade())[3] ?? 1) === 0) place = place.parentElement;
            const both = [luminance(getComputedStyle(element).color), luminance(shade())];
            return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        }"""
        )
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_either_theme(open_page: Open, scheme: str) -> None:
    page = open_page(scheme=scheme)
    for selector in ("td a", "td small", ".note", ".flag.missing", ".flag.catastrophic", "td.fail"):
        assert contrast(page, selector) >= 4.5, selector


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_the_tables_and_not_the_page(open_page: Open, scheme: str) -> None:
    page = open_page(f"#lineage-fake-{CELL}", width=PHONE, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => (one.open = true))")
    assert overflow(page) <= 0
    table = results(page)
    scroll = table.locator("xpath=..")
    assert scroll.evaluate("scroll => scroll.scrollWidth > scroll.clientWidth")
    name = table.locator("tbody th").first
    number = table.locator("tbody td").first
    before = (left(name), left(number))
    scroll.evaluate("scroll => (scroll.scrollLeft = 80)")
    after = (left(name), left(number))
    assert after == (before[0], before[1] - 80)


def test_a_kept_run_says_so_and_has_no_run_in_mlflow(open_page: Open) -> None:
    page = open_page()
    section = page.locator("section.study", has=page.locator("#study-fake-cpu"))
    assert section.locator(".flag.reference").inner_text() == "reference run"
    assert REFERENCE in section.inner_text()
    assert section.locator("a[href^='runs.html']").count() == 0
    assert page.locator("#study-fake").count() == 1
    link = section.locator("table.results td a").first
    link.click()
    assert page.locator("[id='lineage-fake-cpu-natural']").get_attribute("open") is not None
    command = section.locator("code.command").first.text_content()
    node = ".pipeline/fresh/train/fake/natural-s0"
    assert command == f"snakemake --cores all --config 'run=[fake]' -- {node}"


def test_on_paper_everything_is_unfolded_and_dark_on_light(open_page: Open) -> None:
    page = open_page(scheme="dark")
    folds = page.locator("details.fold")
    folds.evaluate_all("folds => folds.forEach(fold => (fold.open = false))")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folds.evaluate_all("folds => folds.every(fold => fold.open)")
    assert background(page) == LIGHT
    assert not page.locator(".tools").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert folds.evaluate_all("folds => folds.every(fold => !fold.open)")


def test_without_scripts_all_is_there(browser: Browser, html: Path) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(html.as_uri())
    assert page.locator("table.results").first.is_visible()
    assert not page.get_by_role("button").count()
    page.locator("table.results td a").first.click()
    assert page.locator("[id='lineage-fake-natural']").is_visible()
    page.context.close()
