"""Node names in Slurm's short form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.errors import BadInput
from dlbench.node_list import compress_nodes, expand_nodes


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        (["n1", "n2", "n3", "n7"], "n[1-3,7]"),
        (["n7"], "n7"),
        (["gpu08", "gpu09", "gpu10"], "gpu[08-10]"),
        (["n9", "n10", "n11"], "n[9-11]"),
        (["login", "n2", "n1", "n1"], "login,n[1-2]"),
        (["rack1-node3", "rack1-node4", "rack2-node3"], "rack1-node[3-4],rack2-node3"),
        (["n1.cluster.example", "n2.cluster.example"], "n[1-2].cluster.example"),
        ([], ""),
    ],
)
def test_names_are_folded_as_slurm_writes_them(names, folded):
    assert compress_nodes(names) == folded


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n[1-3,7]", ["n1", "n2", "n3", "n7"]),
        ("gpu[08-10]", ["gpu08", "gpu09", "gpu10"]),
        ("a,b[1-2],c", ["a", "b1", "b2", "c"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("n1,n1", ["n1"]),
    ],
)
def test_a_list_is_expanded_to_its_names(text, names):
    assert expand_nodes(text) == names


@pytest.mark.parametrize(
    "text", ["", ",", "n[", "n[1-", "n[3-1]", "n[1-999999]", "n[a-b]", "n 1", "-n1", "n[1]]", "$x"]
)
def test_what_is_no_list_is_refused_in_one_line(text):
    with pytest.raises(BadInput) as caught:
        expand_nodes(text)
    assert "\n" not in str(caught.value)


@given(st.sets(st.from_regex(r"[a-z]{1,3}[0-9]{1,4}", fullmatch=True), min_size=1, max_size=40))
def test_expanding_gives_back_what_was_folded(names):
    assert set(expand_nodes(compress_nodes(names))) == names
