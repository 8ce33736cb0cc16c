"""From the report to a run: the page between them, in a real browser."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from advtrain.tracking.runs_page import PAGE, write
from tests.tracking.test_runs_page import ADDRESS, EVALUATION, RUNS


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path):
    """The address of a server that answers as MLflow's would, with some page."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "index.html").write_text("<title>runs</title>", encoding="utf-8")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("wanted", [EVALUATION, f"digits/{EVALUATION}"])
def test_the_key_opens_the_run(tmp_path, browser, served, wanted):
    write(tmp_path, RUNS, served, "mlflow ui")
    page = browser.new_page()
    page.goto(f"{(tmp_path / PAGE).as_uri()}#{wanted}")
    page.wait_for_url(f"{served}/#/experiments/1/runs/digits{EVALUATION}?of=it")
    page.close()


def test_it_says_so_where_nothing_answers(tmp_path, browser):
    write(tmp_path, RUNS, ADDRESS, "mlflow ui")
    page = browser.new_page()
    page.goto(f"{(tmp_path / PAGE).as_uri()}#{EVALUATION}")
    page.get_by_text(f"Nothing answers at {ADDRESS}").wait_for()
    assert page.locator(".wanted").inner_text() == "pgd_20-linf-0.2"
    assert page.locator(".wanted").is_visible()
    page.evaluate("location.hash = '0123'")
    page.get_by_text("No run 0123 has been delivered").wait_for()
    page.close()
