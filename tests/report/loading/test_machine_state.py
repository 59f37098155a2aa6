"""Files of MachineState that lie with results."""

import json

from dlbench.report.chapters.provenance import machine_state_blocks
from dlbench.report.loading.machine_state import read_node_states

#: The form of MachineState 0.6.0, shortened.
STATE = {
    "MachineState": {"Version": "0.6.0", "Timestamp": "Sun Nov 29 01:51:57 2026", "_meta": "MachineStateInfo()"},
    "HostInfo": {"Hostname": "n1", "_meta": "HostInfo()"},
    "KernelInfo": {"Version": "6.1.0", "KernelSchedInfo": {"CacheHotTimeNs": None, "_meta": "KernelSchedInfo()"}},
    "NumaBalancing": {"Enabled": True},
    "CpuAffinity": {"Affinity": [0, 1]},
    "_meta": "MachineState()",
}


def write(folder, host, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    state = STATE | {"HostInfo": {"Hostname": host}} | changes
    (folder / f"{host}.json").write_text(json.dumps(state))


def test_states_are_read_from_results_and_from_the_folders_of_nodes(tmp_path):
    write(tmp_path / "machinestate", "n1")
    write(tmp_path / "nodes" / "n2" / "machinestate", "n2")
    states, problems = read_node_states([tmp_path, tmp_path / "none"])
    assert (list(states), problems) == (["n1", "n2"], [])
    assert states["n1"]["NumaBalancing/Enabled"] == "True"
    assert states["n1"]["CpuAffinity/Affinity"] == "0, 1"
    assert not any("_meta" in name or "CacheHot" in name for name in states["n1"])


def test_the_chapter_names_what_differs_and_on_which_nodes(tmp_path):
    for host in ("n1", "n2", "n4"):
        write(tmp_path / "machinestate", host)
    write(tmp_path / "machinestate", "n3", NumaBalancing={"Enabled": False}, Uptime={"Uptime": 7})
    differences, whole = machine_state_blocks(read_node_states([tmp_path])[0])
    assert differences.table.rows == [["NumaBalancing/Enabled", "True", "False: n3"]]
    assert whole.heading == "MachineState of n1"
    assert ["KernelInfo/Version", "6.1.0"] in whole.table.rows


def test_without_differences_this_is_said_and_without_files_nothing(tmp_path):
    assert machine_state_blocks({}) == []
    for host in ("n1", "n2"):
        write(tmp_path / "machinestate", host)
    assert (
        "differ only in time of recording, system load and names"
        in machine_state_blocks(read_node_states([tmp_path])[0])[0].words
    )


def test_other_files_are_named(tmp_path):
    (tmp_path / "machinestate").mkdir()
    for name, text in (("a", "{"), ("b", '{"x": 1}'), ("c", "[]")):
        (tmp_path / "machinestate" / f"{name}.json").write_text(text)
    states, problems = read_node_states([tmp_path])
    assert not states
    assert len(problems) == 3
    assert all(len(problem.splitlines()) == 1 and "skipped" in problem for problem in problems)
