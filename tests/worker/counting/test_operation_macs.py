"""Operations counted by hand, operations that are not counted, and work that follows the batch, chance or a step."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dlbench.models import BuiltModel
from dlbench.suites.case import Case
from dlbench.worker.counting import operation_macs
from dlbench.worker.counting.case_work import count_case_flop
from dlbench.worker.counting.flops import FlopCountingMode, count_network_flop, count_step_flop, suppress_warnings
from dlbench.worker.counting.layers import layers
from dlbench.worker.counting.traffic import count_work_by_module

NETWORKS = "tests.worker.networks.counted"


def work(network, batch_size=32, mode="training"):
    return count_case_flop(Case(f"{NETWORKS}:{network}", mode=mode, batch_size=batch_size))


@pytest.mark.parametrize("batch_size", [2, 8, 32])
@pytest.mark.parametrize(
    ("network", "once", "per_image", "per_pair"),
    [
        ("MadeWeights", 512 * 128 * 64, 64 * 512 + 512 * 10, 0),
        ("SpectralNorm", 2 * 64 * 10 + 64 * 10 + 10, 64 * 10, 0),
        ("EachToEach", 0, 64 * 256 + 256 * 10, 2 * 256),
    ],
)
def test_flop_are_those_of_the_batch_that_ran(network, once, per_image, per_pair, batch_size):
    macs = round(Fraction(once, batch_size) + per_image + per_pair * batch_size)
    assert work(network, batch_size)["forward_flop"] == 2 * macs


def test_products_of_the_batch_with_itself_and_of_parameters_at_32_images():
    assert work("MadeWeights")["forward_flop"] == 337_920
    assert work("EachToEach", mode="inference")["forward_flop"] == 70_656


def test_a_batch_of_one_is_counted_in_inference():
    assert work("MadeWeights", 1, "inference")["forward_flop"] == 2 * (512 * 128 * 64 + 512 * 64 + 512 * 10)


def test_the_list_of_layers_keeps_apart_what_is_done_once():
    made, head = layers(f"{NETWORKS}:MadeWeights")
    assert (made.macs, made.forward_flop_fixed) == (64 * 512, 2 * 512 * 128 * 64)
    assert (head.macs, head.forward_flop_fixed, head.backward_flop_fixed) == (5120, 0, 0)


@pytest.mark.parametrize(
    ("network", "reason"),
    [("EachToEach", "not linear in the batch"), ("LayerDrop", "different layers in different steps")],
)
def test_there_is_no_list_of_layers_where_no_row_would_hold(network, reason):
    from dlbench.errors import BadInput

    with pytest.raises(BadInput, match=reason):
        layers(f"{NETWORKS}:{network}")


@pytest.mark.parametrize(
    ("network", "macs"),
    [("Bilinear", 41_600), ("Complex", 2_560), ("Distances", 64_000), ("ManhattanDistances", 64_000)],
)
@pytest.mark.parametrize("mode", ["training", "inference"])
def test_products_that_pytorchs_counter_misses(network, macs, mode):
    found = work(network, mode=mode)
    assert found["forward_macs"] == macs
    assert found["flop_partial"] is None
    assert found["warnings"] == ()


def count_on_meta(function, *shapes, backward=True):
    """Forward and backward MACs of a function of tensors, all of which need gradients."""
    with torch.device("meta"):
        tensors = [torch.empty(s, requires_grad=backward) if isinstance(s, tuple) else s for s in shapes]
        tensors = [t.to("meta") if isinstance(t, torch.Tensor) else t for t in tensors]
    with FlopCountingMode(nn.Module()) as mode, suppress_warnings():
        result = function(*tensors)
        if backward:
            mode.backward = True
            result.real.sum().backward()
    forward, back = ([o for o in mode.operations if o.backward == way] for way in (False, True))
    assert not [o.name for o in mode.operations if o.macs is None]
    return sum(o.macs for o in forward), sum(o.macs for o in back)


def deformable(x, weight, offset):
    from torchvision.ops import deform_conv2d

    return deform_conv2d(x, offset, weight, padding=1)


def lstm(x):
    return nn.LSTM(8, 16, num_layers=2, bidirectional=True, device="meta")(x)[0]


def gru(x):
    return nn.GRU(8, 16, device="meta")(x)[0]


def self_attention(x):
    return nn.MultiheadAttention(16, 4, device="meta")(x, x, x, need_weights=False)[0]


BY_HAND = {
    "addbmm": (torch.addbmm, [(3, 5), (4, 3, 7), (4, 7, 5)], 4 * 3 * 7 * 5, 2),
    "baddbmm": (torch.baddbmm, [(4, 3, 5), (4, 3, 7), (4, 7, 5)], 4 * 3 * 7 * 5, 2),
    "addmv": (torch.addmv, [(3,), (3, 7), (7,)], 3 * 7, None),
    "addr": (torch.addr, [(3, 5), (3,), (5,)], 3 * 5, None),
    "in place": (lambda a, b, c: a.clone().addmm_(b, c), [(3, 5), (3, 7), (7, 5)], 3 * 7 * 5, 2),
    "einsum": (lambda a, b: torch.einsum("bij,bjk->bik", a, b), [(4, 3, 7), (4, 7, 5)], 4 * 3 * 7 * 5, 2),
    "tensordot": (lambda a, b: torch.tensordot(a, b, 2), [(3, 4, 5), (4, 5, 6)], 3 * 20 * 6, 2),
    "deformable convolution": (deformable, [(2, 4, 9, 9), (6, 4, 3, 3), (2, 18, 9, 9)], 2 * 6 * 4 * 9 * 81, 2),
    "convolution over time": (torch.conv_tbc, [(12, 2, 4), (3, 4, 6), (6,)], 3 * 4 * 6 * 10 * 2, 2),
    "distances of few points": (torch.cdist, [(2, 5, 8), (2, 6, 8)], 2 * 5 * 6 * 8, 2),
    "distances of many points": (torch.cdist, [(30, 8), (40, 8)], 30 * 40 * 8, 2),
    # Two directions; the second layer reads both of the first.
    "LSTM": (lstm, [(7, 3, 8)], 7 * 3 * 2 * (4 * 16) * (8 + 16 + 32 + 16), None),
    "GRU": (gru, [(7, 3, 8)], 7 * 3 * (3 * 16) * (8 + 16), None),
    "multi-head attention": (self_attention, [(5, 3, 16)], 3 * (5 * 4 * 16 * 16 + 2 * 5 * 5 * 16), None),
    "affine grid": (
        lambda t: functional.affine_grid(t, [2, 3, 4, 5], align_corners=False),
        [(2, 2, 3)],
        2 * 4 * 5 * 2 * 3,
        None,
    ),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_operations_counted_by_hand(case):
    function, shapes, macs, backward = BY_HAND[case]
    forward, back = count_on_meta(function, *shapes)
    assert forward == macs
    if backward is not None:
        assert back == backward * macs


def test_a_complex_product_is_four_real_ones():
    left, right = torch.ones(3, 7, dtype=torch.complex64), torch.ones(7, 5, dtype=torch.complex64)
    assert count_on_meta(torch.mm, left, right, backward=False) == (4 * 3 * 7 * 5, 0)


def test_integer_products_are_counted():
    left, right = torch.ones(32, 16, dtype=torch.int8), torch.ones(16, 8, dtype=torch.int8)
    assert count_on_meta(torch._int_mm, left, right, backward=False) == (32 * 16 * 8, 0)


@pytest.mark.parametrize(("weighted", "macs"), [(False, 0), (True, 12 * 6)])
def test_bags_multiply_where_they_have_weights(weighted, macs):
    indices, weights = torch.zeros(3, 4, dtype=torch.long), torch.ones(3, 4) if weighted else None
    table = torch.ones(100, 6, device="meta", requires_grad=True)

    def bags(table, indices, weights):
        return functional.embedding_bag(indices, table, mode="sum", per_sample_weights=weights)

    assert count_on_meta(bags, (100, 6), indices, weights, backward=False)[0] == macs
    with FlopCountingMode(nn.Module()) as mode:
        result = bags(table, indices.to("meta"), weights if weights is None else weights.to("meta"))
        mode.backward = True
        result.sum().backward()
    assert [o.name for o in mode.operations if o.macs is None] == []
    assert sum(o.macs for o in mode.operations if o.backward) == macs


def test_gradients_that_a_network_takes_itself_are_work_of_its_forward_pass():
    found = work("Forces")
    assert found["forward_macs"] == 2 * 64 * 64 + 64 * 10
    # What PyTorch's counter cannot follow has no figure of it, and keeps ours.
    assert found["pytorch_forward_flop"] in (None, found["forward_flop"])


def test_a_fused_layer_on_the_cpu_is_counted_as_its_products():
    with FlopCountingMode(nn.Module()) as mode, torch.no_grad():
        nn.LSTM(8, 16)(torch.ones(7, 3, 8))
    assert sum(o.macs for o in mode.operations) == 7 * 3 * 4 * 16 * (8 + 16)


def test_composite_operations_are_taken_apart_in_inference_mode_too():
    with FlopCountingMode(nn.Module()) as mode, torch.inference_mode():
        functional.linear(torch.ones(3, 7), torch.ones(5, 7))
        functional.bilinear(torch.ones(2, 4), torch.ones(2, 5), torch.ones(3, 4, 5))
    assert sum(o.macs for o in mode.operations) == 3 * 7 * 5 + 2 * 3 * (4 * 5 + 5)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.fft.rfft(x), "_fft_r2c"),
        (lambda x: torch.linalg.inv(x), "linalg_inv_ex"),
        (lambda x: torch.linalg.svd(x), "_linalg_svd"),
        (lambda x: torch.linalg.solve(x, x), "_linalg_solve_ex"),
    ],
)
def test_an_operation_without_a_formula_is_named(function, name):
    with FlopCountingMode(nn.Module()) as mode:
        function(torch.empty(8, 8, device="meta"))
    assert [(o.name, o.macs) for o in mode.operations] == [(name, None)]


def test_sparse_products_and_somebodys_own_operators_are_named():
    @torch.library.custom_op("dlbench_tests::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x @ x

    with FlopCountingMode(nn.Module()) as mode:
        twice(torch.ones(4, 4))
        torch.mm(torch.eye(4).to_sparse(), torch.ones(4, 4))
    names = {o.name for o in mode.operations if o.macs is None}
    assert {"dlbench_tests::twice", "mm"} <= names


def test_a_partial_count_names_what_is_missing_and_is_never_0():
    found = work("Spectrum")
    assert "_fft_r2c" in found["flop_partial"]
    assert found["forward_flop"] == 2 * 33 * 10
    assert [w.partition(":")[0] for w in found["warnings"]] == ["flop_partial"]
    assert "_fft_r2c" in found["warnings"][0]
    nothing = work("OnlySpectrum")
    assert (nothing["forward_flop"], nothing["backward_flop"], nothing["executed_flop"]) == (None, None, None)


def test_a_partial_count_is_noted_at_the_module_in_layers_and_traffic():
    notes = {path: found.note for path, found in count_work_by_module(f"{NETWORKS}:Spectrum", True, 4).items()}
    assert "_fft_r2c" in notes[""]
    assert notes["head"] is None


def test_no_product_is_free():
    products = (
        "matmul",
        "bmm",
        "conv",
        "attention",
        "rnn",
        "fft_",
        "linalg",
        "cdist",
        "einsum",
        "solve",
        "_mm",
        "addm",
    )
    # Norms, elementwise products, questions about shapes, and frequencies.
    fine = {"linalg_cross", "linalg_vector_norm", "linalg__powsum", "_linalg_check_errors", "_cudnn_rnn_flatten_weight"}
    fine |= {"fft_fftfreq", "fft_rfftfreq"}
    assert [name for name in operation_macs._FREE - fine if any(p in name for p in products)] == []
    assert not operation_macs._FREE & set(operation_macs._FORMULA_OF_NAME)


def test_every_reviewed_name_is_an_operation_of_some_pytorch():
    known = {name.removeprefix("aten::").partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    known |= {name.removesuffix("_") for name in known}
    import torchvision.ops  # noqa: F401

    odd = [n for n in (*operation_macs._FREE, *operation_macs._FORMULA_OF_NAME) if n not in known and "::" not in n]
    # Operations come and go with versions; a slip of the pen would be here too.
    assert len(odd) < 10, odd


@pytest.mark.parametrize("network", ["LayerDrop", "LayerDropByPython", "LayerDropByNumpy", "EverySecondStep"])
def test_work_that_differs_from_step_to_step_is_a_mean_and_says_so(network):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    found = work(network)
    assert found["flop_varies"] is True
    assert found["warnings"][0].startswith("flop_varies: the work differs between steps")
    # Four of eight layers in the mean; the mean of 32 passes is within a layer of it.
    assert found["forward_flop"] == pytest.approx(2 * (4 * 64 * 64 + 64 * 10), abs=2 * 64 * 64)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert work(network)["forward_flop"] == found["forward_flop"]


@pytest.mark.parametrize("network", ["EveryTenthStep", "LayerDropByOwnGenerator"])
def test_rare_steps_and_generators_of_a_networks_own_are_seen(network):
    assert work(network)["flop_varies"] is True


def test_what_does_not_differ_is_not_said_to():
    assert work("LayerDrop", mode="inference")["flop_varies"] is False
    assert work("MadeWeights")["flop_varies"] is False


def test_the_work_of_modules_that_differs_is_a_mean_too():
    found = count_work_by_module(f"{NETWORKS}:EverySecondStep", True, 4)
    assert found["layers.0"].forward_flop == 4 * 64 * 64  # half of 2 x 4 x 64 x 64
    assert "mean of" in found["layers.0"].note


# Without reentrance recomputation stops at the last tensor that is needed, before the last product.
@pytest.mark.parametrize(("network", "products"), [("Checkpointed", 1), ("CheckpointedReentrant", 2)])
def test_recomputation_is_kept_apart_from_the_models_work(network, products):
    plain, found = work("Unchecked"), work(network)
    assert (found["forward_flop"], found["backward_flop"]) == (plain["forward_flop"], plain["backward_flop"])
    assert plain["executed_flop"] == plain["forward_flop"] + plain["backward_flop"]
    assert found["executed_flop"] == plain["executed_flop"] + products * 2 * 128 * 128


@pytest.mark.parametrize("network", ["Checkpointed", "CheckpointedReentrant"])
def test_gradients_of_checkpointed_layers_are_those_layers_own(network):
    rows, plain = ({row.name: row for row in layers(f"{NETWORKS}:{name}")} for name in (network, "Unchecked"))
    assert rows.keys() == plain.keys() == {"first", "block.0", "block.2", "head"}
    for name, row in rows.items():
        assert (row.forward_flop, row.backward_flop) == (plain[name].forward_flop, plain[name].backward_flop)
    moved = count_work_by_module(f"{NETWORKS}:{network}", True, 4)
    # In the backward pass two gradients, and the product once more.
    assert moved["block.0"].backward_flop == 3 * moved["block.0"].forward_flop
    assert moved["first"].backward_flop == moved["first"].forward_flop


def test_the_attention_of_a_vision_transformer_is_in_its_count():
    found = count_network_flop("torchvision:vit_b_16")
    tokens, width, depth = 197, 768, 12
    by_hand = 196 * 3 * 16 * 16 * width + depth * (tokens * 12 * width * width + 2 * tokens**2 * width) + width * 1000
    assert found.forward_macs == by_hand
    assert found.pytorch_forward_flop <= found.forward_flop


def test_a_transformer_counted_by_hand():
    with torch.device("meta"):
        network = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
    with FlopCountingMode(network) as mode, suppress_warnings():
        network(torch.empty(1, 5, 16, device="meta"), torch.empty(1, 3, 16, device="meta"))
    encoder = 5 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 5 * 5 * 16
    own = 3 * 4 * 16 * 16 + 2 * 3 * 3 * 16
    across = 2 * 3 * 16 * 16 + 2 * 5 * 16 * 16 + 2 * 3 * 5 * 16
    assert sum(o.macs for o in mode.operations) == encoder + own + across + 3 * 2 * 16 * 32


def test_one_step_is_one_pass_whatever_was_drawn_before():
    with torch.device("meta"):
        network = BuiltModel(nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 10)), (64,), 10, "dropout")
    assert count_step_flop(network).is_random is False


def test_a_checkpointed_part_without_gradients_is_recomputed_and_no_gradient():
    counted = count_network_flop(f"{NETWORKS}:FrozenPart", batch_size=4)
    # The trained half needs gradients of its weights alone, the head those of its input too.
    assert counted.forward_macs == 2 * 64 * 64 + 640
    assert counted.backward_macs == 64 * 64 + 2 * 640
    # The frozen half runs again; what comes behind it may not, where the recomputation stops early.
    assert 64 * 64 <= counted.recomputed_macs <= 2 * 64 * 64


def test_gradients_that_a_function_computes_with_gradients_enabled_are_no_recomputation():
    counted = count_network_flop(f"{NETWORKS}:OwnGradients", batch_size=4)
    assert (counted.forward_macs, counted.backward_macs) == (64 * 64 + 640, 2 * 64 * 64 + 2 * 640)
    assert counted.recomputed_macs == 0


def test_work_in_other_threads_makes_the_count_partial():
    counted = count_network_flop(f"{NETWORKS}:InThreads", training=False, batch_size=4)
    assert counted.uncounted == ("work in another thread",)
    assert work("InThreads", mode="inference")["flop_partial"] == "work in another thread"
    assert "work in another thread" in (count_work_by_module(f"{NETWORKS}:InThreads", False, 4)["layer"].note or "")
