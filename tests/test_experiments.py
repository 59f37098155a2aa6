"""Pages of experiments say what their stored data give today, by today's rules."""

from benchmarks.experiments import aa, rerun_coverage


def test_the_page_of_reruns_is_what_its_data_give(tmp_path, monkeypatch):
    page, figure = rerun_coverage.PAGE.read_text(encoding="utf-8"), rerun_coverage.FIGURE.name
    monkeypatch.setattr(rerun_coverage, "FIGURE", tmp_path / figure)
    assert rerun_coverage.page() == page
    (together,) = (line for line in page.splitlines() if line.startswith("| all together"))
    mean, following = (float(cell) for cell in together.strip("| ").split(" | ")[-2:])
    assert 93 <= mean <= 97
    assert 93 <= following <= 97


def test_the_stored_processes_of_the_a_a_experiment_are_read():
    records = aa.load()
    assert len(records) == 1932
    assert {record.status for record in records} <= {"ok", "unstable"}
    assert all(record.ranks[0][0].details["load"] > 0 for record in records)
    assert f"{len(records)} processes" in aa.PAGE.read_text(encoding="utf-8").replace("\n", " ")
