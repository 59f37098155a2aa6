"""Fleets: who is slow, how sure it is, and why."""

import numpy as np
import pandas as pd
import pytest

from dlbench.report.analysis import outliers
from dlbench.report.analysis.fleet import MIN_SLOWDOWN, compare_fleet
from tests.fakes import fleets


def named(seed, slow=None):
    """The devices of a fleet of 500 that the rule names, by their numbers; quicker than by `compare_fleet`."""
    found = set()
    for times in fleets.step_times(500, slow=slow, seed=seed):
        values = np.log(times)
        spread = outliers.estimate_spread(values, 0.05, 500 * len(fleets.PUBLIC_RANGES))
        found |= set(np.flatnonzero(values - spread.centre > max(spread.outlier_distance, np.log1p(MIN_SLOWDOWN))))
    return found


def test_fleet_applies_the_rule_to_every_case():
    slow = {7: 1.05, 8: 1.3, 400: 1.03}
    found = compare_fleet(fleets.rows(slow=slow, seed=3)).outliers
    assert {4 * int(o.host[1:]) - 4 + int(o.device) for o in found} == named(3, slow) == set(slow)


def test_a_fleet_without_faults_has_no_alarm_beyond_the_stated_rate():
    alarms = sum(bool(named(seed)) for seed in range(200))
    # 5 % of 200 draws are 10; more than 17 has a chance of 1 %.
    assert alarms <= 17


def test_95_of_100_devices_that_are_5_percent_slow_are_found():
    rng = np.random.default_rng(1)
    found = total = 0
    for seed in range(40):
        slow = dict.fromkeys(rng.choice(500, 5, replace=False).tolist(), 1.05)
        found += len(named(1000 + seed, slow) & set(slow))
        total += len(slow)
    assert found >= 0.95 * total


@pytest.mark.parametrize("units", [4, 6, 20, 100, 2000])
def test_the_stated_rate_holds_for_any_size_of_fleet(units):
    rng = np.random.default_rng(units)
    draws = 400
    alarms = 0
    for _ in range(draws):
        values = rng.normal(size=units)
        spread = outliers.estimate_spread(values, 0.05, units)
        alarms += bool((values - spread.centre > spread.outlier_distance).any())
    # 20 are expected at most; 33 or more has a chance below 1 %.
    assert alarms <= 32


SPREADS = {
    "t with 3 degrees of freedom": lambda rng, units: rng.standard_t(3, units),
    "t with 5 degrees of freedom": lambda rng, units: rng.standard_t(5, units),
    "exponential": lambda rng, units: rng.exponential(size=units),
    "log-normal 0.1": lambda rng, units: rng.lognormal(0, 0.1, units),
    "log-normal 0.3": lambda rng, units: rng.lognormal(0, 0.3, units),
    "log-normal 0.6": lambda rng, units: rng.lognormal(0, 0.6, units),
}


@pytest.mark.parametrize("units", [50, 500])
@pytest.mark.parametrize("draw", SPREADS.values(), ids=SPREADS)
def test_the_stated_rate_holds_where_slow_units_differ_more(draw, units):
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(200):
        values = draw(rng, units)
        spread = outliers.estimate_spread(values, 0.05, units)
        alarms += bool((values - spread.centre > spread.outlier_distance).any())
    # 10 are expected at most; more than 17 has a chance of 1 %.
    assert alarms <= 17


@pytest.mark.parametrize("share", [0.02, 0.04, 0.1, 0.16])
@pytest.mark.parametrize("units", [50, 500])
def test_many_faults_do_not_hide_each_other(units, share):
    rng = np.random.default_rng(1)
    found = total = 0
    for _ in range(50):
        faulty = rng.permutation(units) < share * units
        values = rng.normal(size=units) + faulty * rng.uniform(20, 60, units)
        spread = outliers.estimate_spread(values, 0.05, units)
        found += int((faulty & (values - spread.centre > spread.outlier_distance)).sum())
        total += int(faulty.sum())
    assert found >= 0.95 * total


def test_skewed_spread_of_few_units_is_named_and_normal_spread_seldom():
    rng = np.random.default_rng(1)

    def share(draw):
        draws = [draw(rng, 40) for _ in range(200)]
        return np.mean(
            [outliers.looks_nonnormal(v, outliers.estimate_spread(v, 0.05, 40).outlier_distance) for v in draws]
        )

    assert share(lambda rng, units: rng.normal(size=units)) < 0.1
    assert share(SPREADS["exponential"]) > 0.9
    assert share(SPREADS["log-normal 0.6"]) > 0.6


def test_the_output_says_what_the_rate_assumes():
    rows = fleets.rows(num_nodes=30, per_node=1, ranges=(0.01,))
    assert any("assumes normally distributed values" in note for note in compare_fleet(rows).notes)
    assert not any("not normally" in note for note in compare_fleet(rows).notes)
    rows["step_s"] = 0.1 * np.exp(0.01 * np.random.default_rng(1).exponential(size=30))
    assert any("The values are not normally distributed" in note for note in compare_fleet(rows).notes)
    many = fleets.rows(num_nodes=60, per_node=1, ranges=(0.01,))
    assert not any("normal" in note for note in compare_fleet(many).notes)


def test_heavy_tails_raise_the_limit():
    rng = np.random.default_rng(0)
    assert outliers.outlier_limit(rng.standard_t(3, 500), 0.05, 500) > 2 * outliers.outlier_limit(
        rng.normal(size=500), 0.05, 500
    )


def test_fewer_than_four_units_are_not_judged():
    found = compare_fleet(fleets.rows(num_nodes=3, per_node=1, slow={0: 1.5}))
    assert not found.outliers
    assert not found.tests
    assert "too few to find outliers" in found.notes[0]


def test_a_fleet_of_one_node_is_compared_device_by_device():
    found = compare_fleet(fleets.rows(num_nodes=1, per_node=8, slow={3: 1.3}, ranges=(0.01,)))
    assert [(o.host, o.device) for o in found.outliers] == [("n1", "3")]


def test_equal_values_give_no_alarm():
    rows = fleets.rows(num_nodes=10, ranges=(0.01,)).assign(step_s=0.1)
    rows.loc[0, "step_s"] = 0.2
    assert not compare_fleet(rows).outliers


def test_a_node_that_was_measured_twice_counts_once_by_its_median():
    rows = fleets.rows(num_nodes=10, ranges=(0.01,))
    again = rows.assign(attempt_id=rows["attempt_id"] + "-2", step_s=rows["step_s"] * 1.0001)
    found = compare_fleet(pd.concat([rows, again], ignore_index=True))
    assert found.distributions[0].units == 40


def test_hosts_with_one_short_name_keep_their_full_names():
    rows = fleets.rows(num_nodes=6, per_node=1, ranges=(0.01,), slow={2: 1.2})
    rows["system_hostname"] = [f"n1.{site}.example" for site in "abcdef"]
    found = compare_fleet(rows)
    assert [o.host for o in found.outliers] == ["n1.c.example"]
    assert "Several hosts have the name n1" in found.notes[0]


def test_a_device_on_two_nodes_is_named():
    rows = fleets.rows(num_nodes=8, per_node=1, ranges=(0.01,))
    rows.loc[1, "device_uuid"] = rows.loc[0, "device_uuid"]
    assert any("on several nodes" in note for note in compare_fleet(rows).notes)


def test_cases_over_several_nodes_are_left_out_and_counted():
    rows = fleets.rows(num_nodes=8, per_node=1, ranges=(0.01, 0.01))
    rows.loc[rows["batch_size"] == 2, "nodes"] = 2
    found = compare_fleet(rows)
    assert found.tests == 8
    assert any(note.startswith("8 rows are not used: their cases ran on several nodes") for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"throttle_reasons": ["hw_thermal_slowdown"]}, "throttled because of high temperature (hw_thermal_slowdown)"),
        ({"throttle_reasons": ["sw_power_cap"]}, "slowed by its power limit (sw_power_cap)"),
        ({"sm_clock_min_mhz": 1400.0}, "low clock: 1400 MHz; median of the other units 1900 MHz"),
        ({"temperature_max_c": 88.0}, "hot: 88 °C; median of the other units 60 °C"),
        ({"system_driver_version": "550.1"}, "other driver: 550.1, others 580.82"),
        ({"other_processes": 2}, "other processes on the device"),
        ({"warnings": ["ecc: 3 uncorrected memory errors"]}, "memory errors (ECC)"),
        ({"warnings": ["ecc_uncorrected: 1 memory error(s) during the case"]}, "memory errors (ECC)"),
        (
            {"warnings": ["rows_remapped: 1 memory row(s)"]},
            "memory rows that were remapped, or will be at the next reset",
        ),
        ({"warnings": ["xid: the NVIDIA driver reported Xid error 63"]}, "errors that the driver reported (Xid)"),
        ({"warnings": ["busy_host: others took 40%"]}, "other work on the node"),
    ],
)
def test_the_likely_reason_comes_from_the_record(changes, reason):
    rows = fleets.rows(num_nodes=20, per_node=1, ranges=(0.01,), slow={4: 1.2})
    for name, value in changes.items():
        rows[name] = rows[name].astype(object)
        rows.at[4, name] = value
    assert compare_fleet(rows).outliers[0].reasons == (reason,)


def test_fewer_cores_are_a_reason():
    rows = fleets.rows(num_nodes=20, per_node=1, ranges=(0.01,), slow={4: 1.2}).assign(system_cpu_cores=64)
    rows.loc[4, "system_cpu_cores"] = 32
    assert compare_fleet(rows).outliers[0].reasons == ("fewer cores of the job: 32, others 64",)


def test_what_all_devices_have_is_no_reason():
    rows = fleets.rows(num_nodes=20, per_node=1, ranges=(0.01,), slow={4: 1.2})
    rows["throttle_reasons"] = [["sw_power_cap"]] * len(rows)
    assert compare_fleet(rows).outliers[0].reasons == ()


def test_a_low_bandwidth_from_ceilings_is_an_outlier():
    rows = fleets.rows(num_nodes=10, per_node=1, ranges=(0.01,))
    ceilings = pd.DataFrame(
        {
            "hostname": [f"n{i + 1}" for i in range(10)],
            "device_uuid": [f"GPU-{i:05}" for i in range(10)],
            "device_name": "NVIDIA H200",
            "device_kind": "cuda",
            "torch_threads": 8,
            "cpu_model": "x",
            "kind": "copy",
            "precision": None,
            "median_flop_per_s": np.nan,
            "median_bytes_per_s": [4e12 * (1 + i / 1e3) for i in range(9)] + [3e12],
        }
    )
    found = compare_fleet(rows, ceilings)
    assert [(o.host, o.what) for o in found.outliers] == [("n10", "copy")]


def test_ceilings_of_cpus_are_compared_among_equal_numbers_of_threads():
    rows = fleets.rows(num_nodes=20, per_node=1, ranges=(0.01,))
    threads = [2] * 14 + [1] * 6
    ceilings = pd.DataFrame(
        {
            "hostname": [f"n{i + 1}" for i in range(20)],
            "device_uuid": None,
            "device_name": None,
            "device_kind": "cpu",
            "torch_threads": threads,
            "cpu_model": "x",
            "kind": "matmul",
            "precision": "fp32",
            "median_flop_per_s": [count * 1e9 * (1 + i / 1e3) for i, count in enumerate(threads)],
            "median_bytes_per_s": np.nan,
        }
    )
    found = compare_fleet(rows, ceilings)
    assert not found.outliers
    assert {d.what for d in found.distributions if d.kind == "x"} == {"matmul fp32, 1 thread", "matmul fp32, 2 threads"}


def test_ten_thousand_nodes_are_judged_in_seconds():
    import time

    slow = range(77, 10_000, 25)
    rows = fleets.rows(num_nodes=10_000, per_node=1, ranges=(0.02,), slow=dict.fromkeys(slow, 1.2))
    rows.loc[list(slow), "system_kernel"] = "6.1"
    rows["system_kernel"] = rows["system_kernel"].fillna("6.6")
    begin = time.process_time()
    found = compare_fleet(rows).outliers
    assert {o.host for o in found} == {f"n{1 + number}" for number in slow}
    assert {o.reasons for o in found} == {("other kernel: 6.1, others 6.6",)}
    assert time.process_time() - begin < 20
