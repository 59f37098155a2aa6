"""Time, energy and cost of a training, and price files that are wrong."""

from __future__ import annotations

import math

import pytest

from dlbench.errors import BadInput, InvalidMeasurement, UnknownName
from dlbench.report.analysis.projection import Prices, prices_from_dict, project_training, read_prices
from dlbench.stats import Interval

THROUGHPUT = Interval(1000.0, 950.0, 1100.0, 0.95)
POWER = Interval(500.0, 490.0, 510.0, 0.95)


def test_time_is_images_times_epochs_over_throughput_with_its_limits_turned_around():
    time_s = project_training(1_000_000, 90, THROUGHPUT).time_s
    assert time_s.value == pytest.approx(90_000)
    assert time_s.low == pytest.approx(90e6 / 1100)
    assert time_s.high == pytest.approx(90e6 / 950)
    assert time_s.confidence == 0.95


def test_energy_is_power_times_time_and_both_limits_count():
    energy = project_training(1_000_000, 90, THROUGHPUT, power_w=POWER).energy_j
    assert energy.value == pytest.approx(45e6)
    assert energy.high == pytest.approx(510 * 90e6 / 950)
    assert energy.confidence == pytest.approx(0.90)


def test_power_without_an_interval_leaves_the_confidence_of_time():
    energy = project_training(1_000_000, 90, THROUGHPUT, power_w=500.0).energy_j
    assert energy.low == pytest.approx(500 * 90e6 / 1100)
    assert energy.confidence == pytest.approx(0.95)


def test_cost_counts_electricity_of_the_building_and_hours_of_every_device():
    prices = Prices("EUR", per_kwh=0.20, per_device_hour=2.0, pue=1.5)
    found = project_training(1_000_000, 90, THROUGHPUT, num_devices=4, power_w=2000.0, prices=prices)
    kwh = 2000 * 90_000 / 3.6e6
    assert found.device_hours.value == pytest.approx(100)
    assert found.cost.value == pytest.approx(kwh * 0.20 * 1.5 + 100 * 2.0)
    assert found.cost.low < found.cost.value < found.cost.high
    assert found.currency == "EUR"


def test_without_a_meter_energy_is_missing_and_so_is_a_cost_that_needs_it():
    prices = Prices("EUR", per_kwh=0.20, per_device_hour=2.0)
    found = project_training(1000, 1, THROUGHPUT, prices=prices)
    assert found.energy_j is None
    assert found.cost is None
    assert any("The cost is missing" in sentence for sentence in found.assumptions)


def test_without_a_price_of_electricity_no_meter_is_needed():
    found = project_training(3_600_000, 1, THROUGHPUT, num_devices=2, prices=Prices("USD", per_device_hour=3.0))
    assert found.cost.value == pytest.approx(6.0)
    assert any("electricity is included" in sentence for sentence in found.assumptions)


def test_the_assumptions_are_sentences_with_the_numbers_used():
    prices = Prices("EUR", per_kwh=0.20, pue=1.3)
    sentences = project_training(1281167, 90, THROUGHPUT, power_w=POWER, prices=prices).assumptions
    assert sentences[0] == "90 epochs of 1281167 images on 1 device."
    assert all(sentence.endswith(".") for sentence in sentences)
    text = " ".join(sentences)
    assert "0.2 EUR per kWh" in text
    assert "PUE of 1.3" in text
    assert "the prices have no per_device_hour" in text


@pytest.mark.parametrize(("scope", "words"), [("package", "whole CPU packages"), ("device", "hosts"), (None, "hosts")])
def test_what_is_in_the_energy_follows_the_scope_of_the_meter(scope, words):
    found = project_training(1000, 1, THROUGHPUT, power_w=POWER, energy_scope=scope).assumptions
    (sentence,) = [s for s in found if s.startswith("Energy is")]
    assert words in sentence
    assert ("gross energy of the devices" in sentence) == (scope != "package")


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
def test_a_training_of_nothing_is_refused(bad):
    with pytest.raises(BadInput, match="number of images"):
        project_training(bad, 90, THROUGHPUT)
    with pytest.raises(BadInput, match="number of epochs"):
        project_training(1000, bad, THROUGHPUT)
    with pytest.raises(BadInput, match="number of devices"):
        project_training(1000, 90, THROUGHPUT, num_devices=bad)


@pytest.mark.parametrize("bad", [0.0, -5.0, math.nan, math.inf])
def test_a_throughput_or_power_that_means_nothing_is_refused(bad):
    with pytest.raises(InvalidMeasurement, match="throughput is"):
        project_training(1000, 1, Interval(bad, bad, bad, 0.95))
    with pytest.raises(InvalidMeasurement, match="power is"):
        project_training(1000, 1, THROUGHPUT, power_w=bad)


def test_a_price_file_is_read(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text('currency = "EUR"\nper_kwh = 0.21\nper_device_hour = 2\npue = 1.2\n')
    assert read_prices(path) == Prices("EUR", 0.21, 2, 1.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('currency = "EUR"\nper_kwh = -0.2', r"per_kwh is -0.2; a price must be a number from 0 to 1e\+12"),
        ('currency = "EUR"\nper_kwh = nan', "per_kwh is nan"),
        ('currency = "EUR"\nper_device_hour = inf', "per_device_hour is inf"),
        ('currency = "EUR"\nper_device_hour = 1e308', r"per_device_hour is 1e\+308"),
        (f'currency = "EUR"\nper_kwh = 1{400 * "0"}', "per_kwh exceeds the 64-bit range"),
        (f'currency = "EUR"\nper_kwh = 0x{5000 * "f"}', "per_kwh exceeds the 64-bit range"),
        (f"currency = 0x{5000 * 'f'}\nper_kwh = 1", "currency is a value of type int, too large to print"),
        (f"a = {5000 * '['}", "nested too deeply"),
        (f'currency = "EUR"\nper_kwh = 1{5000 * "0"}', "not valid TOML: Exceeds the limit"),
        ('currency = "EUR"\nper_kwh = 0.2\npue = 1000', "pue is 1000; .* a number from 1 to 100"),
        ('currency = "EUR"\nper_kwh = 0.2\npue = 0.9', "pue is 0.9"),
        ('currency = "EUR"\nper_kwh = 0.2\npue = nan', "pue is nan"),
        ('currency = "EUR"\nper_kwh = "cheap"', "per_kwh is 'cheap'; it must be a number"),
        ('currency = "EUR"\nper_kwh = true', "per_kwh is True; it must be a number"),
        ("currency = 3\nper_kwh = 0.2", "currency is 3; it must be a text"),
        ('currency = " "\nper_kwh = 0.2', "currency is empty"),
        ("per_kwh = 0.2", "currency is missing"),
        ('currency = "EUR"', "neither per_kwh nor per_device_hour"),
        ('currency = "EUR"\nper_kwh = = 1', r"not valid TOML: Invalid value \(at line 2"),
        ("", "currency is missing"),
    ],
)
def test_nonsense_in_a_price_file_is_one_line_that_names_the_file(tmp_path, text, message):
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message) as raised:
        read_prices(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_key_offers_the_near_one():
    with pytest.raises(UnknownName, match="did you mean 'per_kwh'"):
        prices_from_dict({"currency": "EUR", "per_kw": 0.2})


def test_an_unknown_key_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text('currency = "EUR"\nprice_kwh = 0.2')
    with pytest.raises(UnknownName, match=r"prices\.toml"):
        read_prices(path)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"cannot read .*none\.toml: No such file"):
        read_prices(tmp_path / "none.toml")
    with pytest.raises(BadInput, match=r"cannot read .*: it is not a file"):
        read_prices(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not UTF-8"):
        read_prices(binary)


def test_a_system_may_have_prices_of_its_own(tmp_path):
    file = tmp_path / "prices.toml"
    file.write_text('currency = "EUR"\nper_kwh = 0.2\nper_device_hour = 2.0\n[systems.H200]\nper_device_hour = 5.0\n')
    prices = read_prices(file)
    assert (prices.prices_of_system("H200").per_device_hour, prices.prices_of_system("H200").per_kwh) == (5.0, 0.2)
    assert prices.prices_of_system("A100").per_device_hour == 2.0
    assert prices.prices_of_system("A100").currency == prices.prices_of_system("H200").currency == "EUR"
    only = prices_from_dict({"currency": "EUR", "systems": {"H200": {"per_device_hour": 5.0}}})
    assert only.prices_of_system("A100") is None
    assert only.prices_of_system("H200").per_device_hour == 5.0


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        (3, "systems is 3"),
        ({"H200": 3}, "systems is"),
        ({"H200": {"pue": 0.5}}, "pue is 0.5"),
        ({"H200": {}}, "neither"),
    ],
)
def test_wrong_prices_of_a_system_are_clear_errors(systems, message):
    with pytest.raises(BadInput, match=message):
        prices_from_dict({"currency": "EUR", "systems": systems})


def test_a_system_has_no_currency_of_its_own():
    with pytest.raises(UnknownName, match=r"systems\.H200"):
        prices_from_dict({"currency": "EUR", "per_kwh": 1.0, "systems": {"H200": {"currency": "USD"}}})
