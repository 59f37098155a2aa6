"""Process settings that affect the figures of a case: set after the network's code ran, and read back.

A network's file may change them at import, when the network is built, or in each step: many published files enable
TF32 at import. Changes before the window are reset, with a warning. Changes found after the window make the
measurement invalid.
"""

import os
import random
import sys
from typing import Any

import torch

from dlbench import units
from dlbench.errors import BadInput, InvalidMeasurement
from dlbench.suites.case import Case
from dlbench.worker.precision import active_precision_switches, set_precision

#: Not a constant: the compiler of Python would multiply it in advance.
_HALF = float("0.5")
_BACKENDS: Any = torch.backends
_C: Any = torch._C


class ProcessSettings:
    """Settings that `case` requires on `device`, and those of this process before any code of the network ran."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case = case
        self.device = device
        self._threads = case.threads or torch.get_num_threads()
        self._cores = os.sched_getaffinity(0)
        self.apply()
        self._wanted = self.read_current()

    def apply(self) -> None:
        """Apply all settings. Raises BadInput if the device does not support the precision."""
        set_precision(self.case.precision, self.device.type)
        # Before the first parallel operation: its threads take this over.
        if not torch.set_flush_denormal(self.case.flush_denormals == "on") and self.case.flush_denormals == "on":
            raise BadInput("flush_denormals is 'on', but this CPU cannot flush denormals; set it to \"off\"")
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        if torch.are_deterministic_algorithms_enabled():
            torch.use_deterministic_algorithms(False)  # imports torch's compiler, which takes seconds
        torch.autograd.set_detect_anomaly(False)
        torch.set_grad_enabled(True)
        torch.set_autocast_enabled(self.device.type, False)
        _BACKENDS.cuda.matmul.allow_fp16_accumulation = False
        _BACKENDS.cudnn.enabled = True
        _BACKENDS.mkldnn.enabled = True
        _BACKENDS.mkldnn.deterministic = False
        _BACKENDS.cudnn.deterministic = False
        # cuDNN times its algorithms in the first steps, as in usual training; shapes never change here.
        _BACKENDS.cudnn.benchmark = True
        if self.case.threads > len(self._cores):
            cores = units.count_text(len(self._cores), "core")
            raise BadInput(f"threads is {self.case.threads}, but this process may use {cores}; use fewer threads")
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        if os.sched_getaffinity(0) != self._cores:
            os.sched_setaffinity(0, self._cores)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            _BACKENDS.cudnn.benchmark_limit = self.case.cudnn_benchmark_limit

    def set_seeds(self, rank: int = 0) -> None:
        """Seed PyTorch and the other random generators that a network may use."""
        seed = self.case.protocol.seed + rank
        torch.manual_seed(seed)
        random.seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed % 2**32)

    def read_current(self) -> dict[str, object]:
        """Read the current settings, by names for messages."""
        kind = self.device.type
        return {
            **{f"precision of {name.replace('_', ' ')}": value for name, value in active_precision_switches().items()},
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
            "flushing of denormals": sys.float_info.min * _HALF == 0,
            "number of threads": torch.get_num_threads(),
            "cores": sorted(os.sched_getaffinity(0)),
            "current device": torch.cuda.current_device() if kind == "cuda" else kind,
            "open function modes": _C._len_torch_function_stack(),
            "open dispatch modes": _C._len_torch_dispatch_stack(),
        }

    def describe_differences(self, now: dict[str, object] | None = None) -> list[str]:
        """Describe differing settings, such as "number of threads is 1 instead of 4"."""
        found = self.read_current() if now is None else now
        return [
            f"{name} is {_value_text(found[name])} instead of {_value_text(wanted)}"
            for name, wanted in self._wanted.items()
            if found[name] != wanted
        ]

    def restore(self) -> tuple[str, ...]:
        """Reset settings that the network's code changed, with a warning. Raises InvalidMeasurement if one stays."""
        changed = self.describe_differences()
        if not changed:
            return ()
        self.apply()
        self.require_unchanged("the network's code changed settings that cannot be reset")
        return (f"settings_reset: the network's code changed settings, which were reset: {'; '.join(changed)}.",)

    def require_unchanged(self, what: str = "settings changed while the case was measured") -> None:
        """Raise InvalidMeasurement if a setting differs, with the list of differences."""
        changed = self.describe_differences()
        if changed:
            raise InvalidMeasurement(f"{what}: {'; '.join(changed)}; remove these changes from the network's code")

    def read_fixed_settings(self) -> dict[str, object]:
        """Read the settings that must not change within a step: all but those that a step itself switches."""
        own = ("gradients", "inference mode", "autocast", "open function modes", "open dispatch modes")
        return {name: self._wanted[name] if name in own else value for name, value in self.read_current().items()}


def _value_text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).removeprefix("torch.")
