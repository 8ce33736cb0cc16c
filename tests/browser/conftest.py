"""The page of a small study in a real browser; where there is none, these tests skip."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from advtrain.reporting.html import write_report
from advtrain.reporting.panels import INK, PAPER
from advtrain.reporting.study import check_info
from advtrain.reporting.study_report import StudyReport
from advtrain.results.collect import collect, write_collected
from tests.results import synthetic

NAMES = ("chromium", "chromium-browser", "google-chrome")
PUBLISHED = "free/pgd_at"
REFERENCE = "a device, on a day"
DRAWING = (
    f'<svg viewBox="0 0 300 100"><path d="M0 0H9" stroke="{INK}"/><path fill="{PAPER}"/></svg>'
)
FAILURES = [
    {"cell": "trades-linf-0.1-s0", "stage": "train", "state": "missing", "cause": "not run"}
]

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study whose cells differ, and of a reference run of it."""
    root = tmp_path_factory.mktemp("browser")
    synthetic.write_rich_tree(root)
    collected = collect(synthetic.STUDY, synthetic.read_rich_records(root))
    write_collected(collected, root / "collected")
    (root / "figures").mkdir()
    (root / "figures/accuracy_epsilon.svg").write_text(DRAWING)
    told = {"certificates": ["ibp"], "published": {"pgd_at": [PUBLISHED]}}
    own = check_info(synthetic.study_info(failures=FAILURES, **told))
    kept = check_info(synthetic.study_info(name="fake@cpu", title="The kept run", **told))
    studies = [
        StudyReport(own, root / "collected", root / "figures"),
        StudyReport(kept, root / "collected", root / "figures", reference=REFERENCE),
    ]
    write_report(studies, root / "index.html")
    return root / "index.html"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a Chromium: none of {', '.join(NAMES)} is on the PATH")
    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser, html: Path) -> Iterator[Open]:
    """Open the page; no test may leave a message in the console or a request behind."""
    heard: list[str] = []

    def opened(hash: str = "", *, width: int = 1300, scheme: str = "light") -> Page:
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url))
        page.goto(f"{html.as_uri()}{hash}")
        return page

    yield opened
    for context in browser.contexts:
        context.close()
    assert [text for text in heard if not text.startswith(html.as_uri())] == []
