"""Networks whose code changes settings of the whole process: at import, when built, and in each step."""

import random

import torch
from tiny import Net

# As at the head of many published files.
torch.set_float32_matmul_precision("medium")
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True


class _Flips(Net):
    """Changes something in each step, and leaves it so."""

    def __init__(self, flip):
        super().__init__()
        self.flip = flip

    def forward(self, x):
        if x.device.type != "meta":
            self.flip()
        return super().forward(x)


def at_import():
    return Net()


def when_built():
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.autograd.set_detect_anomaly(True)
    torch.set_grad_enabled(False)
    torch.set_autocast_enabled("cpu", True)
    torch.backends.cudnn.benchmark = False
    torch.set_default_device("cpu")
    random.seed(1)
    net = Net()
    torch.set_default_dtype(torch.float64)
    return net


def matmul():
    return _Flips(lambda: torch.set_float32_matmul_precision("medium"))


def threads():
    return _Flips(lambda: torch.set_num_threads(2))


def deterministic():
    return _Flips(lambda: torch.use_deterministic_algorithms(True))


def default_dtype():
    return _Flips(lambda: torch.set_default_dtype(torch.float64))


def default_device():
    return _Flips(lambda: torch.set_default_device("cpu"))


def anomaly():
    return _Flips(lambda: torch.autograd.set_detect_anomaly(True))


class _ForAMoment(Net):
    def forward(self, x):
        torch.set_float32_matmul_precision("medium")
        try:
            return super().forward(x)
        finally:
            torch.set_float32_matmul_precision("highest")


def for_a_moment():
    return _ForAMoment()


class _Casts(Net):
    def forward(self, x):
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return super().forward(x).float()


def casts():
    return _Casts()


class _Refuses(Net):
    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def refuses_autocast():
    return _Refuses()


class _Half(Net):
    def forward(self, x):
        return super().forward(x.to(self.a.weight.dtype))


def half():
    return _Half().bfloat16()


def double():
    return _Half().double()


class _Named(Net):
    def __init__(self):
        super().__init__()
        self.codes = torch.nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
        self.register_buffer("table", torch.zeros(4, dtype=torch.bfloat16))
        self.register_buffer("index", torch.arange(4))


def named():
    return _Named()


def quantized():
    return torch.ao.quantization.quantize_dynamic(Net(), {torch.nn.Linear}, dtype=torch.qint8)
