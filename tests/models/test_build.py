"""Networks by name: ours, torchvision's, timm's, somebody's own factory; and what is said where a name is wrong."""

from __future__ import annotations

import importlib.util
import resource
import sys
import textwrap

import pytest
import torch

from dlbench.errors import BadInput, UnknownName
from dlbench.models import BUILDERS, build, build_on_meta, check_model_name, external, list_networks
from dlbench.worker.counting.flops import count_network_flop
from tests.models.counting import built

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")

FACTORIES = """
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self, classes=10):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)
            self.fc = nn.Linear(4, classes)

        def forward(self, x):
            return self.fc(self.conv(x).mean((2, 3)))

    class WithShape(Network):
        input_shape = [1, 8, 8]

    class Complete(WithShape):
        num_classes = 10

    def plain():
        return WithShape()

    def told():
        return Network()

    told.input_shape, told.num_classes = (1, 9, 9), 7

    def raising():
        raise ValueError("no weights in /nowhere")

    def not_a_module():
        return "resnet50"

    def zero_size():
        network = Network()
        network.input_shape = (1, 0, 8)
        return network

    def no_shape():
        network = Network()
        network.input_shape = 224
        return network

    def too_few_outputs():
        network = Complete()
        network.num_classes = 1000
        return network

    def half_a_class():
        network = Complete()
        network.num_classes = 0.5
        return network

    class Features(Complete):
        def forward(self, x):
            return self.conv(x)

    class Named(Complete):
        def forward(self, x):
            return {"scores": super().forward(x)}

    class ReadsData(WithShape):
        def forward(self, x):
            return super().forward(x) * (1 if x.sum().item() > 0 else 2)

    class ComputesWhenBuilt(Complete):
        def __init__(self):
            super().__init__()
            self.rates = [rate.item() for rate in torch.linspace(0, 1, 3)]

    class Modes(Complete):
        def __init__(self):
            super().__init__()
            self.frozen = nn.BatchNorm2d(4).eval()

    constant = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of factories in the current folder, where a person's own code lies."""
    (tmp_path / "own_networks.py").write_text(textwrap.dedent(FACTORIES))
    (tmp_path / "broken_networks.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("own_networks", "broken_networks"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["squeezenet1_1", "torchvision:squeezenet1_1"])
def test_torchvisions_models_are_known_by_name(name):
    model = build(name)
    assert type(model.module).__module__ == "torchvision.models.squeezenet"
    assert (model.input_shape, model.num_classes, model.name) == ((3, 224, 224), 1000, name)


def test_ours_comes_first_where_torchvision_has_the_same_name():
    assert type(build_on_meta("resnet18").module).__module__ == "dlbench.models.resnet"
    assert type(build_on_meta("torchvision:resnet18").module).__module__ == "torchvision.models.resnet"


@pytest.mark.parametrize(("name", "side"), [("inception_v3", 299), ("vit_h_14", 224), ("swin_v2_t", 256)])
def test_torchvisions_models_get_images_of_their_size(name, side):
    assert built(name).input_shape == (3, side, side)


@needs_timm
@pytest.mark.parametrize("name", ["timm:resnet10t", "resnet10t", "timm:resnet10t.c3_in1k", "resnet10t.c3_in1k"])
def test_timms_models_are_known_by_name(name):
    check_model_name(name)
    model = build_on_meta(name)
    assert type(model.module).__module__ == "timm.models.resnet"
    assert model.num_classes == 1000
    assert len(model.input_shape) == 3


@needs_timm
def test_a_timm_model_is_counted():
    assert count_network_flop("timm:vit_tiny_patch16_224").forward_macs > 1e9


def test_without_timm_one_is_told_to_install_it(monkeypatch):
    monkeypatch.setattr(external, "timm_names", lambda: ())
    with pytest.raises(BadInput, match="pip install timm"):
        build("timm:resnet10t")
    with pytest.raises(BadInput, match="pip install timm"):
        check_model_name("timm:resnet10t")
    assert "resnet10t" not in list_networks()


@pytest.mark.parametrize(
    ("name", "offer"),
    [
        ("resnet5", "resnet50"),
        ("Lenet5", "lenet5"),
        ("torchvision:squeezenet", "squeezenet1_0"),
        pytest.param("timm:resnet10", "resnet101", marks=needs_timm),
    ],
)
@pytest.mark.parametrize("look", [build, build_on_meta, check_model_name])
def test_an_unknown_name_gets_a_near_one_offered(look, name, offer):
    with pytest.raises(UnknownName, match="did you mean '") as caught:
        look(name)
    assert offer[:8] in str(caught.value)


@pytest.mark.parametrize("name", ["", ":", "torchvision:", "no such thing at all"])
def test_an_unknown_name_that_is_near_none_is_one_line(name):
    for look in (build, check_model_name):
        with pytest.raises(BadInput) as caught:
            look(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1", "torchvision:vgg16"])
def test_check_builds_nothing(monkeypatch, name):
    def refuse(*_, **__):
        raise AssertionError("built")

    monkeypatch.setitem(BUILDERS, "lenet5", refuse)
    monkeypatch.setattr("torchvision.models.get_model", refuse)
    check_model_name(name)


def test_available_lists_ours_first_and_every_name_once():
    names = list_networks()
    assert names[: len(BUILDERS)] == list(BUILDERS)
    assert len(names) == len(set(names))
    assert set(external.torchvision_names()) <= set(names)


@pytest.mark.parametrize(
    ("factory", "shape", "classes"),
    [
        ("plain", (1, 8, 8), 10),  # as many classes as scores come out
        ("Complete", (1, 8, 8), 10),
        ("told", (1, 9, 9), 7),  # fewer labels than scores are fine
        ("ReadsData", (1, 8, 8), 1000),  # cannot run on meta: nothing is known of its outputs
        ("ComputesWhenBuilt", (1, 8, 8), 10),
        ("Named", (1, 8, 8), 10),  # scores in a dictionary
    ],
)
@pytest.mark.parametrize("way", [build, build_on_meta])
def test_somebodys_own_factory_is_built(own, way, factory, shape, classes):
    model = way(f"own_networks:{factory}")
    assert (model.input_shape, model.num_classes) == (shape, classes)
    where = {parameter.device.type for parameter in model.module.parameters()}
    assert where == ({"meta"} if way is build_on_meta else {"cpu"})


def test_looking_at_a_networks_outputs_leaves_it_as_it_was(own):
    module = build("own_networks:Modes").module
    assert module.training
    assert not module.frozen.training
    assert module.frozen.num_batches_tracked == 0


def test_a_factory_that_computes_when_it_builds_is_counted(own):
    # 4 filters of 3x3 on 6x6 positions, and 4 x 10 weights.
    assert count_network_flop("own_networks:ComputesWhenBuilt").forward_macs == 4 * 9 * 36 + 40


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_networks:raising", "model 'own_networks:raising': the factory raised ValueError: no weights in /nowhere"),
        ("own_networks:not_a_module", "the factory returned a str, not a torch.nn.Module"),
        ("own_networks:plane", "unknown factory 'plane' in module 'own_networks'; did you mean 'plain'?"),
        ("own_networks:constant", "unknown factory 'constant'"),
        ("own_networks:", "unknown factory ''"),
        ("own_network:plain", "cannot import 'own_network': ModuleNotFoundError: No module named 'own_network'"),
        ("broken_networks:plain", "No module named 'nothing_of_this_name'"),
        ("own_networks:zero_size", "has input_shape (1, 0, 8); it must be whole numbers above zero"),
        ("own_networks:no_shape", "has input_shape 224"),
        ("own_networks:half_a_class", "has num_classes 0.5"),
        ("own_networks:too_few_outputs", "declares num_classes = 1000, but returns scores for 10 classes"),
        ("own_networks:Features", "returns a tensor of shape (2, 4, 6, 6) for 2 images of (1, 8, 8)"),
    ],
)
@pytest.mark.parametrize("way", [build, build_on_meta])
def test_a_factory_that_goes_wrong_is_one_clear_line(own, way, name, message):
    with pytest.raises(BadInput) as caught:
        way(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_check_imports_a_factory_and_does_not_call_it(own):
    check_model_name("own_networks:raising")
    with pytest.raises(UnknownName, match="did you mean 'plain'"):
        check_model_name("own_networks:plane")


def peak_rss_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_on_meta_no_weights_are_allocated():
    build_on_meta("lenet5")
    before = peak_rss_bytes()
    models = [build_on_meta(name) for name in (*BUILDERS, "vit_h_14", "regnet_y_128gf")]
    tensors = [t for m in models for t in (*m.module.parameters(), *m.module.buffers())]
    assert all(tensor.is_meta for tensor in tensors)
    # Together they are 10 GB; RegNet's computed widths need its largest layer, 200 MB, for a moment.
    assert sum(t.numel() * t.element_size() for t in tensors) > 8e9
    assert peak_rss_bytes() - before < 1e9


def test_building_on_meta_leaves_torch_as_it_was():
    build_on_meta("regnet_y_400mf")
    assert torch.nn.Linear(2, 2).weight.device.type == "cpu"


@pytest.mark.parametrize("name", ["googlenet", "googlenet_floor", "torchvision:googlenet", "inception_v3"])
def test_for_inference_a_network_is_built_without_auxiliary_heads(name):
    whole, lean = build_on_meta(name).module, build_on_meta(name, training=False).module
    sizes = [sum(p.numel() for p in module.parameters()) for module in (whole, lean)]
    assert sizes[0] - sizes[1] > 3e6
    assert not [path for path, _ in lean.named_parameters() if path.lower().startswith("aux")]


@pytest.mark.parametrize("name", ["alexnet", "overfeat_fast", "vgg11", "googlenet", "resnet18"])
def test_no_weight_keeps_uninitialised_memory(name):
    torch.use_deterministic_algorithms(True)  # fills uninitialised memory with NaN
    try:
        assert torch.empty(1).isnan()
        assert all(tensor.isfinite().all() for tensor in BUILDERS[name]().state_dict().values())
    finally:
        torch.use_deterministic_algorithms(False)
