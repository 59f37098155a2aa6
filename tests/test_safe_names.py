import pytest

from dlbench.safe_names import short_repr, why_unsafe_name


@pytest.mark.parametrize(
    "name",
    [
        "../../../ESCAPED",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "..",
        ".",
        ".hidden",
        "",
        None,
        7,
        ["a"],
        "a\0b",
        "a\nb",
        "\ud800",
        "x" * 201,
        "é" * 101,
    ],
)
def test_a_name_that_must_not_become_a_path_is_told_why(name):
    assert why_unsafe_name(name)


@pytest.mark.parametrize("name", ["20261123T050000-0123456789ab-abcdef", "a b", "größe", "模型", "a..b", "x" * 200])
def test_other_names_may_become_paths(name):
    assert why_unsafe_name(name) == ""


@pytest.mark.parametrize(("value", "text"), [("4", "'4'"), (4, "4"), (None, "None"), ("a\nb", r"'a\nb'")])
def test_messages_quote_short_values_whole(value, text):
    assert short_repr(value) == text


def test_messages_quote_no_more_than_a_line():
    for value in ("x" * 20_000_000, 10**5000, list(range(10**5)), "\n" * 500):
        assert len(short_repr(value)) <= 80
        assert "\n" not in short_repr(value)


def test_what_cannot_be_printed_is_said_to_be_so():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    assert short_repr(nested) == "a value of type list, too large to print"
