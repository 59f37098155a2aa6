"""Published results at a web address, served by a local server of static files."""

import functools
import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from dlbench.__main__ import main
from dlbench.errors import StoreError
from dlbench.results import remote_results
from dlbench.suites.case import Case
from tests.fakes import records as fakes


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The folder that is served, and its address."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "www"
    fakes.fill(folder / "h200", [fakes.record(Case("vgg16", device="cuda"), number=i) for i in range(3)])
    (folder / "h200" / "merged-fake.parquet").rename(folder / "h200" / "records.parquet")
    (folder / "h200" / "report").mkdir()
    (folder / "h200" / "report" / "index.html").write_text("page")
    sign(folder / "h200")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        asked: list[str] = []  # noqa: RUF012

        def log_message(self, *_):
            self.asked.append(self.path)

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        Quiet.asked.clear()
        yield folder / "h200", f"http://127.0.0.1:{server.server_port}/h200", Quiet.asked
        server.shutdown()
        thread.join()


def sign(folder, **more):
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "SHA256SUMS"]
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder)}" for file in files]
    (folder / "SHA256SUMS").write_text("\n".join([*lines, *(f"{'0' * 64}  {name}" for name in more.values())]) + "\n")


def test_an_address_becomes_a_folder_with_the_results_and_is_downloaded_once(served):
    folder, url, asked = served
    source = remote_results.download_source(f"{url}/")
    name, _, local = source.partition("=")
    assert name == "h200"
    assert asked == ["/h200/SHA256SUMS", "/h200/records.parquet"]
    assert (Path(local) / "records.parquet").read_bytes() == (folder / "records.parquet").read_bytes()
    assert remote_results.download_source(f"mine={url}") == f"mine={local}"
    assert asked[2:] == ["/h200/SHA256SUMS"]


def test_the_address_of_a_parquet_file_is_a_source(served):
    _, url, _ = served
    source = remote_results.download_source(f"{url}/records.parquet")
    assert source.startswith("records=/")
    assert source.endswith("/records.parquet")


def test_paths_and_patterns_stay_as_they_are():
    assert [remote_results.download_source(source) for source in ("results", "A=x/*.parquet")] == [
        "results",
        "A=x/*.parquet",
    ]


def test_a_report_takes_an_address_as_a_reference(served, tmp_path, capsys):
    _, url, _ = served
    fakes.fill(tmp_path / "mine", [fakes.record(Case("vgg16", device="cuda"), fakes.CPU, number=9)])
    assert main(["report", str(tmp_path / "mine"), f"reference={url}", "-o", str(tmp_path / "report")]) == 0
    assert "reference" in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "records.parquet").write_bytes(b"x"), "differs from its checksum"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "404 .*dlbench publish"),
        (lambda folder: (folder / "SHA256SUMS").write_text("<html>"), "is not a list of checksums"),
        (lambda folder: sign(folder, bad="../../etc/x.parquet"), "is not a plain file name"),
        (lambda folder: sign(folder, bad="missing.parquet"), "missing.parquet: 404"),
    ],
    ids=["changed", "no sums", "a page", "outside", "missing"],
)
def test_what_is_no_publication_is_one_line(served, damage, message):
    folder, url, _ = served
    damage(folder)
    with pytest.raises(StoreError, match=message) as caught:
        remote_results.download_source(url)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://[bad/x", "https://no-such-host.invalid/x"])
def test_an_address_that_does_not_answer_ends_with_2(url, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["report", url, "-o", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
