"""What a person sees of a campaign: the line of each case, and what is said at its end."""

from __future__ import annotations

from dlbench.commands import campaign
from dlbench.launch.progress import Progress, _energy_j
from dlbench.launch.supervise import Campaign
from dlbench.spec.case import Case
from tests.fakes import records as fakes
from tests.fakes.workers import script

BUSY = "busy_host: other processes took 63% of this process's 2 cores."


def test_a_line_says_what_kind_of_warning_and_how_much_of_it():
    warnings = (BUSY, "drift: the median step time changed by -3.4% from ...", "host_bound: at 9 of 10 looks.")
    line = Progress(1).case_line(fakes.record(Case("lenet5"), fakes.CPU, warnings=warnings))
    assert line.endswith("(busy_host 63 %, drift -3.4 %, host_bound)")


def test_ranks_that_share_a_meter_count_it_once():
    case = Case("lenet5", devices_per_node=2)
    shared = fakes.record(case, fakes.CPU, energy_scope="package", energy_source="rapl", energy_j=100.0)
    own = fakes.record(case, fakes.CPU, energy_scope="device", energy_source="nvml_counter", energy_j=100.0)
    assert (_energy_j(shared), _energy_j(own)) == (100.0, 200.0)
    unknown = fakes.record(case, fakes.CPU, energy_j=None)
    assert _energy_j(unknown) is None


def test_a_campaign_on_a_busy_host_says_so_at_its_end(tmp_path, capsys):
    body = f"import json; d = json.loads(good)\nd['ranks'][0]['measurement']['warnings'] = [{BUSY!r}]\n"
    body += "good = json.dumps(d)\nwrite_good()"
    cases = [Case("lenet5", batch_size=1), Case("lenet5", batch_size=2)]
    assert campaign._measure(Campaign(tmp_path, "s", 1, "sys", launcher=script(body)), cases, fresh=False) == 0
    said = capsys.readouterr().err
    assert said.count("(busy_host 63 %)") == 2
    assert "busy host in 2 of 2 cases" in said
    quiet = Campaign(tmp_path, "s", 1, "sys", launcher=script("write_good()"))
    assert campaign._measure(quiet, cases, fresh=True) == 0
    assert "busy host" not in capsys.readouterr().err
