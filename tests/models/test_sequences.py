"""Networks on sequences: parameters and FLOP by hand formulas, and outputs against PyTorch's own layers."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from torch import nn

from dlbench.models import BUILDERS, BuiltModel, build, build_on_meta
from dlbench.models.transformer import GPT2, Transformer
from dlbench.suites.case import Case
from dlbench.suites.case_estimates import predicted_memory_bytes, step_flop
from dlbench.suites.catalog import CATALOG, find_model
from dlbench.tasks import TASKS
from dlbench.worker.counting.flops import count_step_flop
from dlbench.worker.counting.memory_prediction import predict_memory
from tests.models.counting import built, counted
from tests.worker.counting.test_memory_prediction import measured

PARAMETERS = {
    "mlp": 669_706,
    "deep_autoencoder": 2_837_314,
    "conv_autoencoder": 210_369,
    "lstm_lm": 19_780_400,
    "transformer_base": 63_082_496,
    "gpt2_small": 124_439_808,
}


def lstm_lm_macs(t, h=650, vocabulary=10_000):
    """MACs per sequence: 4 T h (e + h) per layer, and the output."""
    return 2 * 4 * t * h * (h + h) + t * h * vocabulary


def transformer_base_macs(t, d=512, ff=2_048, vocabulary=37_000):
    """Self-attention has four projections and 2 T^2 d, in full whatever its mask; the feed-forward network has 2 d ff."""
    attention = 4 * t * d * d + 2 * t * t * d
    encoder = attention + 2 * t * d * ff
    decoder = 2 * attention + 2 * t * d * ff
    return 6 * (encoder + decoder) + t * d * vocabulary


def gpt2_small_macs(t, d=768, vocabulary=50_257):
    return 12 * (4 * t * d * d + 2 * t * t * d + 8 * t * d * d) + t * d * vocabulary


FORMULAS = {"lstm_lm": lstm_lm_macs, "transformer_base": transformer_base_macs, "gpt2_small": gpt2_small_macs}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_meet_the_known_answers_to_the_last_integer(name):
    assert counted(name).parameters == CATALOG[name].parameters == PARAMETERS[name]


@pytest.mark.parametrize("length", [None, 20])
@pytest.mark.parametrize("name", FORMULAS)
def test_flop_meet_the_hand_formula_at_any_length(name, length):
    asked = name if length is None else f"{name}@{length}"
    t = length or CATALOG[name].input_shape[-1]
    macs = FORMULAS[name](t)
    found = counted(asked)
    inference = count_step_flop(built(asked), training=False)
    assert found.forward_flop == 2 * macs == inference.forward_flop == find_model(asked).forward_flop
    # An embedding needs a gradient, so that no product lacks one; an LSTM has none to the state it starts from.
    unneeded = 2 * 4 * 650 * 650 if name == "lstm_lm" else 0
    assert found.backward_flop == 2 * (2 * macs - unneeded)
    assert found.uncounted == ()
    assert find_model(asked).training_flop == found.forward_flop + found.backward_flop
    assert step_flop(Case(asked, batch_size=3)) == 3 * find_model(asked).training_flop


@pytest.mark.parametrize("name", ["deep_autoencoder", "conv_autoencoder", "mlp"])
def test_backward_lacks_the_gradient_to_the_image_alone(name):
    found = counted(name)
    first = next(o for o in found.operations if not o.backward)
    assert found.backward_macs == 2 * found.forward_macs - first.macs // 2


def layer_flop(module, shapes, classes=7):
    """Forward and backward FLOP of one sample of a layer of PyTorch's, with a gradient to its inputs."""

    class Fed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = module
            self.scale = nn.Parameter(torch.ones((), device="meta"))

        def forward(self, *inputs):
            outputs = self.layer(*(x * self.scale for x in inputs))
            return outputs[0] if isinstance(outputs, tuple) else outputs

    def make_batch(size, *_):
        return tuple(torch.empty(size, *shape, device="meta") for shape in shapes), torch.empty(0, device="meta")

    task = TASKS["reconstruction"]
    task = task.__class__(task.name, "seq", make_batch, lambda y, _: y.sum(), task.check_output, task.items_per_sample)
    found = count_step_flop(BuiltModel(Fed(), shapes[0], classes, "tiny", task=task), batch_size=2)
    assert found.uncounted == ()
    return found.forward_flop, found.backward_flop


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("directions", [1, 2])
def test_pytorchs_recurrent_layers_in_training_meet_the_hand_formula(kind, gates, layers, directions):
    t, e, h = 9, 8, 12
    with torch.device("meta"):
        module = kind(e, h, layers, batch_first=True, bidirectional=directions == 2)
    inputs = [e] + [directions * h] * (layers - 1)
    macs = sum(directions * gates * t * h * (width + h) for width in inputs)
    # The state that a sequence starts from needs no gradient.
    unneeded = layers * directions * gates * h * h
    assert layer_flop(module, [(t, e)]) == (2 * macs, 2 * (2 * macs - unneeded))


def test_pytorchs_attention_in_training_meets_the_hand_formula():
    t, s, d = 6, 10, 16
    with torch.device("meta"):
        module = nn.MultiheadAttention(d, 4, batch_first=True)
    macs = 2 * t * d * d + 2 * s * d * d + 2 * t * s * d
    assert layer_flop(module, [(t, d), (s, d), (s, d)]) == (2 * macs, 4 * macs)


def test_pytorchs_transformer_in_training_meets_the_hand_formula():
    s, t, d, ff = 10, 6, 16, 24
    with torch.device("meta"):
        module = nn.Transformer(d, 4, 2, 3, ff, batch_first=True)
    encoder = 4 * s * d * d + 2 * s * s * d + 2 * s * d * ff
    decoder = 4 * t * d * d + 2 * t * t * d + (2 * t + 2 * s) * d * d + 2 * t * s * d + 2 * t * d * ff
    macs = 2 * encoder + 3 * decoder
    assert layer_flop(module, [(s, d), (t, d)]) == (2 * macs, 4 * macs)


def copy_attention(theirs, ours):
    q, k, v = theirs.in_proj_weight.chunk(3)
    qb, kb, vb = theirs.in_proj_bias.chunk(3)
    ours.query.weight.copy_(q), ours.query.bias.copy_(qb)
    ours.key_value.weight.copy_(torch.cat((k, v))), ours.key_value.bias.copy_(torch.cat((kb, vb)))
    ours.output.load_state_dict(theirs.out_proj.state_dict())


def copy_layer(theirs, feed_forward, pairs):
    feed_forward[0].load_state_dict(theirs.linear1.state_dict())
    feed_forward[2].load_state_dict(theirs.linear2.state_dict())
    for norm, of_ours in pairs:
        of_ours.load_state_dict(norm.state_dict())


def test_with_equal_weights_loss_and_gradient_are_those_of_pytorchs_transformer():
    torch.manual_seed(0)
    d, vocabulary = 32, 50
    ours = Transformer(vocabulary, d, 64, 4, 2, 0.0, longest=16)
    theirs = nn.Transformer(d, 4, 2, 2, 64, dropout=0.0, batch_first=True)
    theirs.encoder.norm = theirs.decoder.norm = None  # which the paper does not have
    with torch.no_grad():
        for stack in ("encoder", "decoder"):
            for a, b in zip(getattr(theirs, stack).layers, getattr(ours, stack), strict=True):
                copy_attention(a.self_attn, b.attention)
                norms = [a.norm1, a.norm2]
                if stack == "decoder":
                    copy_attention(a.multihead_attn, b.cross_attention)
                    norms.append(a.norm3)
                copy_layer(a, b.feed_forward, zip(norms, b.norms, strict=True))
    (source, target), targets = TASKS["translation"].make_batch(3, (7, 9), vocabulary, torch.device("cpu"))
    loss = TASKS["translation"].loss(ours(source, target), targets)

    def embed(tokens):
        position = torch.arange(tokens.shape[1])[:, None]
        rate = 10_000 ** (-torch.arange(0, d, 2) / d)
        sines = torch.zeros(tokens.shape[1], d)
        sines[:, 0::2], sines[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
        return nn.functional.embedding(tokens, ours.embedding.weight) * math.sqrt(d) + sines

    mask = nn.Transformer.generate_square_subsequent_mask(9)
    scores = theirs(embed(source), embed(target), tgt_mask=mask) @ ours.embedding.weight.T
    expected = nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, ours.embedding.weight)[0]
    torch.testing.assert_close(found, torch.autograd.grad(expected, ours.embedding.weight)[0])


def test_with_equal_weights_gpt2_has_loss_and_gradient_of_pytorchs_encoder_with_norms_in_front():
    torch.manual_seed(0)
    d, vocabulary, t = 32, 50, 9
    ours = GPT2(vocabulary, 16, d, 4, 3).eval()
    activation = nn.GELU(approximate="tanh")
    layer = nn.TransformerEncoderLayer(d, 4, 4 * d, 0.0, activation, batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoder(layer, 3, nn.LayerNorm(d), enable_nested_tensor=False)
    with torch.no_grad():
        for parameter in theirs.parameters():  # the layers are copies, with equal weights
            parameter.add_(0.1 * torch.randn_like(parameter))
        ours.norm.load_state_dict(theirs.norm.state_dict())
        for a, b in zip(theirs.layers, ours.layers, strict=True):
            copy_attention(a.self_attn, b.attention)
            copy_layer(a, b.feed_forward, [(a.norm1, b.norm_attention), (a.norm2, b.norm_feed_forward)])
    (tokens,), targets = TASKS["language_model"].make_batch(2, (t,), vocabulary, torch.device("cpu"))
    loss = TASKS["language_model"].loss(ours(tokens), targets)
    embedded = ours.embedding.weight[tokens] + ours.positions.weight[:t]
    mask = nn.Transformer.generate_square_subsequent_mask(t)
    scores = theirs(embedded, mask, is_causal=True) @ ours.embedding.weight.T
    expected = nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, ours.embedding.weight)[0]
    torch.testing.assert_close(found, torch.autograd.grad(expected, ours.embedding.weight)[0])


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_with_equal_weights_the_loss_is_that_of_transformers_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_positions=32, n_embd=48, n_layer=3, n_head=4)).eval()
    ours = GPT2(100, 32, 48, 4, 3).eval()
    with torch.no_grad():
        copy_gpt2(theirs.transformer, ours)
    (tokens,), targets = TASKS["language_model"].make_batch(2, (20,), 100, torch.device("cpu"))
    expected = theirs(tokens).logits
    torch.testing.assert_close(ours(tokens), expected)
    loss = TASKS["language_model"].loss
    torch.testing.assert_close(loss(ours(tokens), targets), loss(expected, targets))


def copy_gpt2(theirs, ours):
    ours.embedding.weight.copy_(theirs.wte.weight)
    ours.positions.weight.copy_(theirs.wpe.weight)
    ours.norm.load_state_dict(theirs.ln_f.state_dict())
    for a, b in zip(theirs.h, ours.layers, strict=True):
        b.norm_attention.load_state_dict(a.ln_1.state_dict())
        b.norm_feed_forward.load_state_dict(a.ln_2.state_dict())
        d = ours.embedding.embedding_dim
        weight, bias = a.attn.c_attn.weight.T, a.attn.c_attn.bias
        b.attention.query.weight.copy_(weight[:d]), b.attention.query.bias.copy_(bias[:d])
        b.attention.key_value.weight.copy_(weight[d:]), b.attention.key_value.bias.copy_(bias[d:])
        for layer, linear in (
            (a.attn.c_proj, b.attention.output),
            (a.mlp.c_fc, b.feed_forward[0]),
            (a.mlp.c_proj, b.feed_forward[2]),
        ):
            linear.weight.copy_(layer.weight.T), linear.bias.copy_(layer.bias)


@pytest.mark.parametrize("name", ["transformer_base", "gpt2_small@8"])
def test_no_position_of_the_target_sees_a_later_one(name):
    torch.manual_seed(0)
    model = build(name)
    module = model.module.eval()
    inputs = model.task.make_batch(1, (8,) * len(model.input_shape), 1000, torch.device("cpu"))[0]
    changed = (*inputs[:-1], inputs[-1].clone())
    changed[-1][0, 5] += 1
    with torch.inference_mode():
        before, after = module(*inputs), module(*changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("name", ["lstm_lm", "transformer_base", "gpt2_small"])
def test_the_embedding_is_the_outputs_weight_where_it_is_tied(name):
    module = build_on_meta(name).module
    assert (module.output.weight is module.embedding.weight) == (name != "lstm_lm")


def test_tied_weights_are_predicted_once():
    prediction = predict_memory(Case("transformer_base", batch_size=1, device="cuda", optimizer="adam"))
    sines = 4 * 1_024 * 512
    assert prediction.parameter_bytes - prediction.buffer_bytes == 4 * 63_082_496
    assert prediction.buffer_bytes == sines
    assert prediction.optimizer_state_bytes == pytest.approx(2 * 4 * 63_082_496, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "batch_size"),
    [("mlp", 64), ("deep_autoencoder", 64), ("lstm_lm", 8), ("gpt2_small@256", 1)],
)
@pytest.mark.parametrize("mode", ["training", "inference"])
def test_the_plan_predicts_the_allocators_peak(name, batch_size, mode):
    case = Case(name, mode=mode, batch_size=batch_size, device="cpu")
    assert predicted_memory_bytes(case) == pytest.approx(measured(case)[1], rel=0.10)


def test_every_network_on_sequences_can_be_built():
    assert {name for name, model in CATALOG.items() if model.longest} == set(FORMULAS) <= set(BUILDERS)
