"""The search for the fastest correct setting, on a device whose speed is a formula."""

from __future__ import annotations

import dataclasses
import re

import pytest

from dlbench.campaign.setting_search import SettingSearch
from dlbench.campaign.tuning import best_setting_as_suite_toml, suite_name
from dlbench.errors import BadInput
from dlbench.suites.case import Case
from dlbench.suites.levers import improvement_path, lever_values_to_try, setting_without_protocol
from dlbench.suites.suite import load_suite
from tests.fakes import records as fakes

FIRST = Case("lenet5", device="cpu")
VALUES = lever_values_to_try(FIRST, ["fp32", "amp_bf16", "amp_fp16"], 2)
PROCESS_S = 5.0


def img_per_s(case: Case) -> float:
    """A device that likes batches of 64, one thread and fused updates, the latter only with one thread."""
    rate = 1000.0 - 2 * abs(case.batch_size - 64)
    rate *= 1.5 if case.threads == 1 else 1.0
    rate *= 1.2 if case.optimizer_impl == "fused" else 1.0
    rate *= 0.5 if "16" in case.precision else 1.0
    return rate if case.memory_format == "channels_first" else 0.9 * rate


def finished(case: Case, rate: float, **changes):
    made = fakes.record(case, fakes.CPU, **{"loss_first": 2.3} | changes)
    (system, measured), *_ = made.ranks
    measured = dataclasses.replace(measured, step_s=(case.batch_size / rate,) * 30)
    return dataclasses.replace(made, ranks=((system, measured),), wall_s=PROCESS_S)


def run(search: SettingSearch, outcome=lambda case: finished(case, img_per_s(case))) -> list[Case]:
    done = []
    for case in search.processes_to_measure([]):
        search.now_s += search.cost_s(case)
        search.add_record(outcome(case))
        done.append(case)
        assert len(done) < 200
    return done


class Clocked(SettingSearch):
    now_s = 0.0

    @staticmethod
    def cost_s(case: Case) -> float:
        return PROCESS_S


def search_of(budget_s=400.0, **changes) -> Clocked:
    found = Clocked(FIRST, VALUES, budget_s, **changes)
    found.clock = lambda: found.now_s
    found._began_s = 0.0
    return found


def test_the_best_combination_is_found_within_the_budget():
    search = search_of()
    done = run(search)
    best = dataclasses.replace(setting_without_protocol(FIRST), batch_size=64, threads=1, optimizer_impl="fused")
    assert search.best == best
    assert search.now_s <= 400.0
    assert done[0] == dataclasses.replace(setting_without_protocol(FIRST), protocol=done[0].protocol)
    # Both in turns at the end, in fresh processes.
    assert {setting_without_protocol(case) for case in done[-2:]} == {best, setting_without_protocol(FIRST)}


def test_where_processes_take_much_of_the_budget_levers_are_tried_with_a_smaller_batch():
    search = search_of(budget_s=400.0)
    search.cost_s = lambda case: 3.0 + case.batch_size / 2
    done = run(search, lambda case: dataclasses.replace(finished(case, img_per_s(case)), wall_s=search.cost_s(case)))
    assert {case.batch_size for case in done if case.memory_format == "channels_last"} == {8}
    assert search.best == dataclasses.replace(
        setting_without_protocol(FIRST), batch_size=64, threads=1, optimizer_impl="fused"
    )
    assert search.now_s <= 400.0


def test_what_each_lever_gave_multiplies_to_the_whole():
    search = search_of()
    run(search)
    changes = search.gains_by_change()
    assert {change.text for change in changes} == {"batch size 64", "1 thread", "optimizer impl fused"}
    product = 1.0
    for change in changes:
        product *= change.ratio
    assert product == pytest.approx(img_per_s(search.best) / img_per_s(FIRST))


def test_a_setting_with_wrong_numbers_is_not_taken():
    said = []
    search = search_of(say=said.append)
    run(search, lambda case: finished(case, img_per_s(case), loss_first=9.0 if case.threads == 1 else 2.3))
    assert search.best.threads == 0
    assert any("its loss is 9, but the loss of the default setting is 2.3" in text for text in said)


def test_a_setting_that_fails_when_it_is_checked_is_not_taken():
    search = search_of()

    def outcome(case):
        if case.protocol.fingerprint == "on" and case.threads == 1:
            return dataclasses.replace(fakes.record(case, fakes.CPU, status="invalid"), error="a wrong kernel")
        return finished(case, img_per_s(case))

    run(search, outcome)
    assert search.best.threads == 0
    assert any("a wrong kernel" in text for text in search.describe_unmeasured())


def test_an_equal_search_goes_on_where_the_last_one_ended():
    first = search_of(budget_s=60.0)
    done = run(first)
    again = search_of()
    again.tried = dict(first.tried)
    assert not {case.id for case in run(again)} & {case.id for case in done}


def test_settings_for_which_the_budget_has_no_time_are_counted():
    search = search_of(budget_s=60.0)
    run(search)
    assert re.search(r"the budget ended before \d+ settings were tried", search.describe_unmeasured()[-1])
    assert search.now_s <= 60.0


def test_no_correct_setting_is_an_error_with_the_reason():
    search = search_of()
    failed = dataclasses.replace(fakes.record(FIRST, fakes.CPU, status="invalid"), error="the loss is nan")
    run(search, lambda case: dataclasses.replace(failed, case=case.to_dict()))
    with pytest.raises(BadInput, match="the default setting of lenet5 fails: the loss is nan"):
        search.require_measured_setting()


def test_a_budget_for_one_setting_alone_is_an_error_that_names_its_time():
    search = search_of(budget_s=6.0)
    assert len(run(search)) == 1
    with pytest.raises(BadInput, match=r"budget of 6.00 s is too short: measuring one setting of lenet5 takes 5.00 s"):
        search.require_measured_setting()


def test_energy_without_a_meter_is_an_error_in_one_line():
    search = search_of(goal="energy")
    run(search, lambda case: finished(case, img_per_s(case), energy_j=None, energy_source="none"))
    with pytest.raises(BadInput, match="the device has no energy meter; use --for throughput"):
        search.require_measured_setting()


def test_the_suite_file_measures_the_best_setting(tmp_path):
    search = search_of()
    run(search)
    (tmp_path / "tuned.toml").write_text(best_setting_as_suite_toml(search))
    (case,) = load_suite(tmp_path / "tuned.toml").cases("cpu")
    assert setting_without_protocol(case) == search.best


def test_values_fit_the_device_and_the_mode():
    assert "cuda_graph" not in VALUES
    assert "fold_batch_norm" not in VALUES
    assert VALUES["precision"] == ("amp_bf16", "bf16")
    gpu = lever_values_to_try(Case("lenet5", "inference", device="cuda"), ["fp32", "tf32", "amp_bf16", "amp_fp16"], 8)
    assert gpu["precision"] == ("tf32", "amp_bf16", "amp_fp16", "bf16", "fp16")
    assert gpu["cuda_graph"] == ("on",)
    assert "threads" not in gpu


def test_levers_that_were_not_measured_apart_are_one_change():
    best = dataclasses.replace(FIRST, threads=1, memory_format="channels_last")
    (change,) = improvement_path({FIRST: 10.0, best: 20.0}, FIRST, best)
    assert (change.text, change.ratio) == ("channels_last, 1 thread", 2.0)


def test_searches_with_other_fixed_axes_have_other_names():
    assert suite_name(FIRST, ["batch_size"], "throughput") != suite_name(FIRST, [], "throughput")
    assert suite_name(Case("a.b:c d"), [], "energy").startswith("tune-a.b-c-d-training-")
