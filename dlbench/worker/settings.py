"""The settings of the whole process that a case's figures depend on: set after the network's code ran, and read back.

A network's file may change any of them at import, when it is built, or in each step: many published files switch TF32
on at their head. What differs when the network is built is set back, with a warning. What differs after the window was
not what the case asks for, and the measurement is invalid.
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import torch

from dlbench.errors import InvalidMeasurement
from dlbench.suites.case import Case
from dlbench.worker.precision import read_precision, set_precision

_BACKENDS: Any = torch.backends
_C: Any = torch._C


class Settings:
    """What `case` asks for on `device`, and what this process had before any code of the network ran."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case = case
        self.device = device
        self._threads = torch.get_num_threads()
        self._cores = os.sched_getaffinity(0)
        self.set()
        self._wanted = self.read()

    def set(self) -> None:
        """Set all that can be set.

        Raises:
            BadInput: the device does not have the precision.
        """
        set_precision(self.case.precision, self.device.type)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.use_deterministic_algorithms(False)
        torch.autograd.set_detect_anomaly(False)
        torch.set_grad_enabled(True)
        torch.set_autocast_enabled(self.device.type, False)
        _BACKENDS.cuda.matmul.allow_fp16_accumulation = False
        _BACKENDS.cudnn.enabled = True
        _BACKENDS.mkldnn.enabled = True
        _BACKENDS.mkldnn.deterministic = False
        _BACKENDS.cudnn.deterministic = False
        # Lets cuDNN time its algorithms in the first steps, as training does in practice; shapes never change here.
        _BACKENDS.cudnn.benchmark = True
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        if os.sched_getaffinity(0) != self._cores:
            os.sched_setaffinity(0, self._cores)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def set_seeds(self, rank: int = 0) -> None:
        """Seed PyTorch, and what a network may draw from besides."""
        seed = self.case.protocol.seed + rank
        torch.manual_seed(seed)
        random.seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed % 2**32)

    def read(self) -> dict[str, object]:
        """The settings as they are now, by names that a message can use."""
        kind = self.device.type
        return {
            **{f"precision of {name.replace('_', ' ')}": value for name, value in read_precision().items()},
            "default dtype": torch.get_default_dtype(),
            "default device": torch.get_default_device(),
            "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
            "anomaly detection": torch.is_anomaly_enabled(),
            "gradients": torch.is_grad_enabled(),
            "inference mode": torch.is_inference_mode_enabled(),
            "autocast": torch.is_autocast_enabled(kind),
            "accumulation in fp16": _BACKENDS.cuda.matmul.allow_fp16_accumulation,
            "cuDNN": _BACKENDS.cudnn.enabled,
            "oneDNN": _BACKENDS.mkldnn.enabled,
            "oneDNN's deterministic mode": _BACKENDS.mkldnn.deterministic,
            "cuDNN's deterministic mode": _BACKENDS.cudnn.deterministic,
            "cuDNN's choice of algorithms": _BACKENDS.cudnn.benchmark,
            "number of threads": torch.get_num_threads(),
            "cores": sorted(os.sched_getaffinity(0)),
            "current device": torch.cuda.current_device() if kind == "cuda" else kind,
            "open function modes": _C._len_torch_function_stack(),
            "open dispatch modes": _C._len_torch_dispatch_stack(),
        }

    def differences(self, now: dict[str, object] | None = None) -> list[str]:
        """What is not as wanted, such as "number of threads is 1 instead of 4"."""
        found = self.read() if now is None else now
        return [
            f"{name} is {_text(found[name])} instead of {_text(wanted)}"
            for name, wanted in self._wanted.items()
            if found[name] != wanted
        ]

    def set_back(self) -> tuple[str, ...]:
        """Set again what the network's code changed; gives a warning that names it.

        Raises:
            InvalidMeasurement: it cannot be set back.
        """
        changed = self.differences()
        if not changed:
            return ()
        self.set()
        self.require("the network's code changed what cannot be set back")
        return (f"settings_reset: after the network was imported and built, {'; '.join(changed)}; set back.",)

    def require(self, what: str = "settings changed while the case was measured") -> None:
        """Raises InvalidMeasurement where something is not as wanted, and says what."""
        changed = self.differences()
        if changed:
            raise InvalidMeasurement(f"{what}: {'; '.join(changed)}; take it out of the network's code")

    def read_in_step(self) -> dict[str, object]:
        """What a step may not change even for a moment: what `read` gives, but for what a step itself switches."""
        own = ("gradients", "inference mode", "autocast", "open function modes", "open dispatch modes")
        return {name: self._wanted[name] if name in own else value for name, value in self.read().items()}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).removeprefix("torch.")
