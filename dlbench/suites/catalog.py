"""Catalogue of the built-in networks: facts that are available without torch, for example on a login node.

The counts are plain integers, so that plan, audit and report need no torch. A test builds every network and compares
each integer with the count from the actual modules.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from dlbench.errors import BadInput

#: Separates the name of a network from the length of its sequences: ``gpt2_small@256``.
LENGTH_SIGN = "@"


@dataclass(frozen=True)
class Model:
    """One network. MAC and FLOP are per sample; weights leave biases out, parameters count them.

    `attention_macs` are those of products of activations with each other, which have no weights; `recurrent_macs` those
    of LSTM layers. What backward does beyond or below twice the forward pass is in `training_flop`.
    """

    name: str  # name in suites
    title: str  # as in tables
    family: str
    input_shape: tuple[int, ...]  # C, H, W; T tokens; S source and T target tokens
    parameters: int  # in training, with those of auxiliary heads
    training_flop: int  # forward and backward, auxiliary heads included
    source: str
    num_classes: int = 0  # or size of the vocabulary; 0: the network has neither
    conv_layers: int = 0
    conv_weights: int = 0
    conv_macs: int = 0
    fc_layers: int = 0
    fc_weights: int = 0
    fc_macs: int = 0
    auxiliary_parameters: int = 0  # of heads that only training has
    task: str = "classification"
    attention_macs: int = 0
    recurrent_weights: int = 0
    recurrent_macs: int = 0
    longest: int = 0  # maximum length of a sequence [tokens]; 0: its length is fixed

    @property
    def sample_unit(self) -> str:
        """The unit of a sample: an image or a sequence."""
        return "img" if len(self.input_shape) == 3 else "seq"

    @property
    def inference_parameters(self) -> int:
        """Parameters of the network without auxiliary heads."""
        return self.parameters - self.auxiliary_parameters

    @property
    def forward_macs(self) -> int:
        """MACs of the forward pass of one sample, without auxiliary heads."""
        return self.conv_macs + self.fc_macs + self.attention_macs + self.recurrent_macs

    @property
    def forward_flop(self) -> int:
        """FLOP of the forward pass of one sample in inference."""
        return 2 * self.forward_macs


_MODELS = (
    Model(
        name="lenet5",
        title="LeNet-5",
        family="lenet",
        input_shape=(1, 28, 28),
        num_classes=10,
        conv_layers=2,
        conv_weights=2_550,
        conv_macs=357_600,
        fc_layers=3,
        fc_weights=58_920,
        fc_macs=58_920,
        parameters=61_706,
        training_flop=2_263_920,
        source="LeCun et al. 1998, Proc. IEEE 86(11), figure 2; C3 dense",
    ),
    Model(
        name="lenet5_sparse_c3",
        title="LeNet-5 (sparse C3)",
        family="lenet",
        input_shape=(1, 28, 28),
        num_classes=10,
        conv_layers=4,
        conv_weights=1_650,
        conv_macs=267_600,
        fc_layers=3,
        fc_weights=58_920,
        fc_macs=58_920,
        parameters=60_806,
        training_flop=1_723_920,
        source="LeCun et al. 1998, Proc. IEEE 86(11), figure 2 and table I",
    ),
    Model(
        name="alexnet",
        title="AlexNet",
        family="alexnet",
        input_shape=(3, 227, 227),
        num_classes=1000,
        conv_layers=5,
        conv_weights=2_332_704,
        conv_macs=665_784_864,
        fc_layers=3,
        fc_weights=58_621_952,
        fc_macs=58_621_952,
        parameters=60_965_224,
        training_flop=4_135_610_496,
        source="Krizhevsky et al. 2012, NIPS, section 3.5 and figure 2",
    ),
    Model(
        name="alexnet_owt",
        title="AlexNet (one tower)",
        family="alexnet",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=5,
        conv_weights=2_468_544,
        conv_macs=655_566_528,
        fc_layers=3,
        fc_weights=58_621_952,
        fc_macs=58_621_952,
        parameters=61_100_840,
        training_flop=4_144_577_280,
        source="Krizhevsky 2014, arXiv:1404.5997",
    ),
    Model(
        name="overfeat_fast",
        title="OverFeat fast",
        family="overfeat",
        input_shape=(3, 231, 231),
        num_classes=1000,
        conv_layers=5,
        conv_weights=15_984_672,
        conv_macs=2_671_478_784,
        fc_layers=3,
        fc_weights=129_925_120,
        fc_macs=129_925_120,
        parameters=145_920_872,
        training_flop=16_589_856_768,
        source="Sermanet et al. 2014, ICLR, table 1",
    ),
    Model(
        name="vgg11",
        title="VGG-11",
        family="vgg",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=8,
        conv_weights=9_217_728,
        conv_macs=7_485_456_384,
        fc_layers=3,
        fc_weights=123_633_664,
        fc_macs=123_633_664,
        parameters=132_863_336,
        training_flop=45_481_132_032,
        source="Simonyan & Zisserman 2015, ICLR, table 1, configuration A",
    ),
    Model(
        name="vgg13",
        title="VGG-13",
        family="vgg",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=10,
        conv_weights=9_402_048,
        conv_macs=11_184_832_512,
        fc_layers=3,
        fc_weights=123_633_664,
        fc_macs=123_633_664,
        parameters=133_047_848,
        training_flop=67_677_388_800,
        source="Simonyan & Zisserman 2015, ICLR, table 1, configuration B",
    ),
    Model(
        name="vgg16",
        title="VGG-16",
        family="vgg",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=13,
        conv_weights=14_710_464,
        conv_macs=15_346_630_656,
        fc_layers=3,
        fc_weights=123_633_664,
        fc_macs=123_633_664,
        parameters=138_357_544,
        training_flop=92_648_177_664,
        source="Simonyan & Zisserman 2015, ICLR, table 1, configuration D",
    ),
    Model(
        name="vgg19",
        title="VGG-19",
        family="vgg",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=16,
        conv_weights=20_018_880,
        conv_macs=19_508_428_800,
        fc_layers=3,
        fc_weights=123_633_664,
        fc_macs=123_633_664,
        parameters=143_667_240,
        training_flop=117_618_966_528,
        source="Simonyan & Zisserman 2015, ICLR, table 1, configuration E",
    ),
    Model(
        name="googlenet",
        title="GoogLeNet",
        family="googlenet",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=57,
        conv_weights=5_966_272,
        conv_macs=1_581_647_872,
        fc_layers=1,
        fc_weights=1_024_000,
        fc_macs=1_024_000,
        parameters=13_378_280,
        training_flop=9_310_236_672,
        source="Szegedy et al. 2015, CVPR, table 1",
        auxiliary_parameters=6_379_728,
    ),
    Model(
        name="googlenet_floor",
        title="GoogLeNet (rounding down)",
        family="googlenet",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=57,
        conv_weights=5_966_272,
        conv_macs=1_430_532_352,
        fc_layers=1,
        fc_weights=1_024_000,
        fc_macs=1_024_000,
        parameters=11_543_272,
        training_flop=8_386_942_464,
        source="Szegedy et al. 2015, CVPR, table 1; pooled sizes rounded down",
        auxiliary_parameters=4_544_720,
    ),
    Model(
        name="resnet18",
        title="ResNet-18",
        family="resnet",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=20,
        conv_weights=11_166_912,
        conv_macs=1_813_561_344,
        fc_layers=1,
        fc_weights=512_000,
        fc_macs=512_000,
        parameters=11_689_512,
        training_flop=10_648_412_160,
        source="He et al. 2016, CVPR, table 1",
    ),
    Model(
        name="resnet34",
        title="ResNet-34",
        family="resnet",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=36,
        conv_weights=21_267_648,
        conv_macs=3_663_249_408,
        fc_layers=1,
        fc_weights=512_000,
        fc_macs=512_000,
        parameters=21_797_672,
        training_flop=21_746_540_544,
        source="He et al. 2016, CVPR, table 1",
    ),
    Model(
        name="resnet50",
        title="ResNet-50",
        family="resnet",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=53,
        conv_weights=23_454_912,
        conv_macs=3_855_925_248,
        fc_layers=1,
        fc_weights=2_048_000,
        fc_macs=2_048_000,
        parameters=25_557_032,
        training_flop=22_911_811_584,
        source="He et al. 2016, CVPR, table 1",
    ),
    Model(
        name="resnet101",
        title="ResNet-101",
        family="resnet",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=104,
        conv_weights=42_394_816,
        conv_macs=7_568_146_432,
        fc_layers=1,
        fc_weights=2_048_000,
        fc_macs=2_048_000,
        parameters=44_549_160,
        training_flop=45_185_138_688,
        source="He et al. 2016, CVPR, table 1",
    ),
    Model(
        name="resnet152",
        title="ResNet-152",
        family="resnet",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=155,
        conv_weights=57_992_384,
        conv_macs=11_280_367_616,
        fc_layers=1,
        fc_weights=2_048_000,
        fc_macs=2_048_000,
        parameters=60_192_808,
        training_flop=67_458_465_792,
        source="He et al. 2016, CVPR, table 1",
    ),
    Model(
        name="resnet50_v1_5",
        title="ResNet-50 v1.5",
        family="resnet",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=53,
        conv_weights=23_454_912,
        conv_macs=4_087_136_256,
        fc_layers=1,
        fc_weights=2_048_000,
        fc_macs=2_048_000,
        parameters=25_557_032,
        training_flop=24_299_077_632,
        source="He et al. 2016, CVPR, table 1; stride in the 3x3",
    ),
    Model(
        name="resnet101_v1_5",
        title="ResNet-101 v1.5",
        family="resnet",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=104,
        conv_weights=42_394_816,
        conv_macs=7_799_357_440,
        fc_layers=1,
        fc_weights=2_048_000,
        fc_macs=2_048_000,
        parameters=44_549_160,
        training_flop=46_572_404_736,
        source="He et al. 2016, CVPR, table 1; stride in the 3x3",
    ),
    Model(
        name="resnet152_v1_5",
        title="ResNet-152 v1.5",
        family="resnet",
        input_shape=(3, 224, 224),
        num_classes=1000,
        conv_layers=155,
        conv_weights=57_992_384,
        conv_macs=11_511_578_624,
        fc_layers=1,
        fc_weights=2_048_000,
        fc_macs=2_048_000,
        parameters=60_192_808,
        training_flop=68_845_731_840,
        source="He et al. 2016, CVPR, table 1; stride in the 3x3",
    ),
    Model(
        name="mlp",
        title="MLP",
        family="mlp",
        input_shape=(1, 28, 28),
        num_classes=10,
        fc_layers=3,
        fc_weights=668_672,
        fc_macs=668_672,
        parameters=669_706,
        training_flop=3_209_216,
        source="after LeCun et al. 1998, Proc. IEEE 86(11), section III-C; 784-512-512-10, ReLU",
    ),
    Model(
        name="deep_autoencoder",
        title="Deep autoencoder",
        family="autoencoder",
        input_shape=(1, 28, 28),
        fc_layers=8,
        fc_weights=2_833_000,
        fc_macs=2_833_000,
        parameters=2_837_314,
        training_flop=15_430_000,
        source="Hinton & Salakhutdinov 2006, Science 313, p. 504",
        task="reconstruction",
    ),
    Model(
        name="conv_autoencoder",
        title="Conv. autoencoder",
        family="autoencoder",
        input_shape=(1, 28, 28),
        conv_layers=6,
        conv_weights=210_208,
        conv_macs=708_736,
        parameters=210_369,
        training_flop=4_195_968,
        source="strided convolutions 1-16-32 (3x3/2), 64 (7x7), mirrored by transposed ones",
        task="reconstruction",
    ),
    Model(
        name="lstm_lm",
        title="LSTM (medium)",
        family="lstm",
        input_shape=(35,),
        num_classes=10_000,
        fc_layers=1,
        fc_weights=6_500_000,
        fc_macs=227_500_000,
        parameters=19_780_400,
        training_flop=2_777_840_000,
        source="Zaremba et al. 2014, arXiv:1409.2329, section 4.1, medium; two biases per gate",
        task="language_model",
        recurrent_weights=6_760_000,
        recurrent_macs=236_600_000,
        longest=8_192,
    ),
    Model(
        name="transformer_base",
        title="Transformer (base)",
        family="transformer",
        input_shape=(128, 128),
        num_classes=37_000,
        fc_layers=79,
        fc_weights=62_984_192,
        fc_macs=8_061_976_576,
        parameters=63_082_496,
        training_flop=50_183_798_784,
        source="Vaswani et al. 2017, NIPS, table 3, base; tied vocabulary of 37,000",
        task="translation",
        attention_macs=301_989_888,
        longest=1_024,
    ),
    Model(
        name="gpt2_small",
        title="GPT-2 small",
        family="gpt2",
        input_shape=(1_024,),
        num_classes=50_257,
        fc_layers=61,
        fc_weights=123_532_032,
        fc_macs=126_496_800_768,
        parameters=124_439_808,
        training_flop=874_944_921_600,
        source="Radford et al. 2019, table 2, 117M; tied vocabulary",
        task="language_model",
        attention_macs=19_327_352_832,
        longest=1_024,
    ),
)

#: All networks by name, the classic ones in order of their years.
CATALOG: dict[str, Model] = {model.name: model for model in _MODELS}


def find_model(name: str) -> Model | None:
    """Return the network `name`, which may end in a sequence length; None if it is not in the catalogue.

    Raises:
        BadInput: the network does not support this length.
    """
    base, sign, length = name.partition(LENGTH_SIGN)
    model = CATALOG.get(base)
    if model is None or not sign:
        return model
    if not model.longest:
        raise BadInput(f"model '{name}': {base} does not take sequences of tokens; write '{base}'")
    if not length.isascii() or not length.isdigit() or not 1 <= int(length) <= model.longest:
        raise BadInput(f"model '{name}': {base} takes sequences of 1 to {model.longest} tokens, not '{length}'")
    return _with_length(model, name, int(length))


def _with_length(model: Model, name: str, length: int) -> Model:
    """`model` for sequences of `length` tokens: attention grows with its square, all else with it."""
    before = model.input_shape[-1]

    def grown(macs: int) -> int:
        return macs // before * length

    found = dataclasses.replace(
        model,
        name=name,
        title=f"{model.title} ({length} tok)",
        input_shape=(length,) * len(model.input_shape),
        fc_macs=grown(model.fc_macs),
        recurrent_macs=grown(model.recurrent_macs),
        attention_macs=model.attention_macs // before**2 * length**2,
    )
    # What backward leaves out is the same for any length: an LSTM's gradient to the state that it starts from.
    left_out = 6 * model.forward_macs - model.training_flop
    return dataclasses.replace(found, training_flop=6 * found.forward_macs - left_out)
