"""Fleets: who is slow, how sure it is, and why."""

import numpy as np
import pandas as pd
import pytest

from dlbench.report.analysis import outliers
from dlbench.report.analysis.fleet import fleet
from tests.fakes import fleets


def test_a_fleet_without_faults_has_no_alarm_beyond_the_stated_rate():
    alarms = sum(bool(fleet(fleets.rows(seed=seed)).outliers) for seed in range(200))
    # 5 % of 200 draws are 10; more than 17 has a chance of 1 %.
    assert alarms <= 17


def test_95_of_100_devices_that_are_5_percent_slow_are_found():
    rng = np.random.default_rng(1)
    found = total = 0
    for seed in range(40):
        slow = dict.fromkeys(rng.choice(500, 5, replace=False).tolist(), 1.05)
        named = {(o.host, o.device) for o in fleet(fleets.rows(slow=slow, seed=1000 + seed)).outliers}
        found += sum((f"n{1 + place // 4}", str(place % 4)) in named for place in slow)
        total += len(slow)
    assert found >= 0.95 * total


@pytest.mark.parametrize("units", [4, 6, 20, 100, 2000])
def test_the_stated_rate_holds_for_any_size_of_fleet(units):
    rng = np.random.default_rng(units)
    draws = 400
    alarms = 0
    for _ in range(draws):
        values = rng.normal(size=units)
        spread = outliers.spread(values, 0.05, units)
        alarms += bool((values - spread.centre > spread.reach).any())
    # 20 are expected at most; 33 or more has a chance below 1 %.
    assert alarms <= 32


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.standard_t(5, 500),
        lambda rng: rng.lognormal(0, 0.1, 500),
        lambda rng: rng.lognormal(0, 0.3, 500),
    ],
    ids=["t with 5 degrees of freedom", "log-normal 0.1", "log-normal 0.3"],
)
def test_the_stated_rate_holds_where_slow_units_differ_more(draw):
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(400):
        values = draw(rng)
        spread = outliers.spread(values, 0.05, 500)
        alarms += bool((values - spread.centre > spread.reach).any())
    # 20 are expected at most; 33 or more has a chance below 1 %.
    assert alarms <= 32


def test_heavy_tails_raise_the_limit():
    rng = np.random.default_rng(0)
    assert outliers.limit(rng.standard_t(3, 500), 0.05, 500) > 2 * outliers.limit(rng.normal(size=500), 0.05, 500)


def test_fewer_than_four_units_are_not_judged():
    found = fleet(fleets.rows(num_nodes=3, per_node=1, slow={0: 1.5}))
    assert not found.outliers
    assert not found.tests
    assert "too few to name an outlier" in found.notes[0]


def test_a_fleet_of_one_node_is_compared_device_by_device():
    found = fleet(fleets.rows(num_nodes=1, per_node=8, slow={3: 1.3}, ranges=(0.01,)))
    assert [(o.host, o.device) for o in found.outliers] == [("n1", "3")]


def test_equal_values_give_no_alarm():
    rows = fleets.rows(num_nodes=10, ranges=(0.01,)).assign(step_s=0.1)
    rows.loc[0, "step_s"] = 0.2
    assert not fleet(rows).outliers


def test_a_node_that_was_measured_twice_counts_once_by_its_median():
    rows = fleets.rows(num_nodes=10, ranges=(0.01,))
    again = rows.assign(attempt_id=rows["attempt_id"] + "-2", step_s=rows["step_s"] * 1.0001)
    found = fleet(pd.concat([rows, again], ignore_index=True))
    assert found.distributions[0].units == 40


def test_hosts_with_one_short_name_keep_their_full_names():
    rows = fleets.rows(num_nodes=6, per_node=1, ranges=(0.01,), slow={2: 1.2})
    rows["system_hostname"] = [f"n1.{site}.example" for site in "abcdef"]
    found = fleet(rows)
    assert [o.host for o in found.outliers] == ["n1.c.example"]
    assert "Several hosts are called n1" in found.notes[0]


def test_a_device_on_two_nodes_is_named():
    rows = fleets.rows(num_nodes=8, per_node=1, ranges=(0.01,))
    rows.loc[1, "device_uuid"] = rows.loc[0, "device_uuid"]
    assert any("on several nodes" in note for note in fleet(rows).notes)


def test_cases_over_several_nodes_are_left_out_and_counted():
    rows = fleets.rows(num_nodes=8, per_node=1, ranges=(0.01, 0.01))
    rows.loc[rows["batch_size"] == 2, "nodes"] = 2
    found = fleet(rows)
    assert found.tests == 8
    assert any(note.startswith("8 rows are left out: of cases over several nodes") for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"throttle_reasons": ["hw_thermal_slowdown"]}, "throttled by temperature (hw_thermal_slowdown)"),
        ({"throttle_reasons": ["sw_power_cap"]}, "held by its power limit (sw_power_cap)"),
        ({"sm_clock_min_mhz": 1400.0}, "low clock: 1400 MHz, others 1900 MHz"),
        ({"temperature_max_c": 88.0}, "hot: 88 °C, others 60 °C"),
        ({"system_driver_version": "550.1"}, "other driver: 550.1, others 580.82"),
        ({"other_processes": 2}, "other processes on the device"),
        ({"warnings": ["ecc: 3 uncorrected memory errors"]}, "memory errors (ECC)"),
        ({"warnings": ["busy_host: others took 40%"]}, "other work on the node"),
    ],
)
def test_the_likely_reason_comes_from_the_record(changes, reason):
    rows = fleets.rows(num_nodes=20, per_node=1, ranges=(0.01,), slow={4: 1.2})
    for name, value in changes.items():
        rows[name] = rows[name].astype(object)
        rows.at[4, name] = value
    assert fleet(rows).outliers[0].reasons == (reason,)


def test_fewer_cores_are_a_reason():
    rows = fleets.rows(num_nodes=20, per_node=1, ranges=(0.01,), slow={4: 1.2}).assign(system_cpu_cores=64)
    rows.loc[4, "system_cpu_cores"] = 32
    assert fleet(rows).outliers[0].reasons == ("fewer cores of the job: 32, others 64",)


def test_what_all_devices_have_is_no_reason():
    rows = fleets.rows(num_nodes=20, per_node=1, ranges=(0.01,), slow={4: 1.2})
    rows["throttle_reasons"] = [["sw_power_cap"]] * len(rows)
    assert fleet(rows).outliers[0].reasons == ()


def test_a_low_bandwidth_from_ceilings_is_an_outlier():
    rows = fleets.rows(num_nodes=10, per_node=1, ranges=(0.01,))
    ceilings = pd.DataFrame(
        {
            "hostname": [f"n{i + 1}" for i in range(10)],
            "device_uuid": [f"GPU-{i:05}" for i in range(10)],
            "device_name": "NVIDIA H200",
            "cpu_model": "x",
            "kind": "copy",
            "precision": None,
            "median_flop_per_s": np.nan,
            "median_bytes_per_s": [4e12 * (1 + i / 1e3) for i in range(9)] + [3e12],
        }
    )
    found = fleet(rows, ceilings)
    assert [(o.host, o.what) for o in found.outliers] == [("n10", "copy")]


def test_ten_thousand_nodes_are_judged_in_seconds():
    import time

    rows = fleets.rows(num_nodes=10_000, per_node=1, ranges=(0.02,), slow={77: 1.2})
    begin = time.process_time()
    assert [o.host for o in fleet(rows).outliers] == ["n78"]
    assert time.process_time() - begin < 20
