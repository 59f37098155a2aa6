"""A stand-in for nvidia-ml-py that behaves like the real thing; put its folder first on PYTHONPATH, or `install` it.

Names and error classes are the real ones, taken from the real module's source. What devices there are and how they
behave is a JSON file named by FAKE_NVML, so that the sampler's process sees the same devices; power is a function of
perf_counter, which all processes share. The energy counter and the power sensor move every 100 ms; the sensor shows the
average over the last 25 ms of a tick, as on A100 and H100.

A device: {"uuid": "GPU-...", "power": [[until_s, watts], ..., [null, watts]], "mig": false, "processes": [pid, ...],
"module": watts or null, "energy": "counter" | "unsupported" | "no_permission" | "frozen", "lost_at_s": null or time,
"reset_at_s": null or time, "throttle": bits, "power_scale": 1.0 (an error of the sensor), "old_driver": false (it does
not know the newest call for processes), "ecc": {"corrected_volatile": 1, ...} or null, "rows": [corrected, uncorrected,
pending, failed] or null, "xids": [number, ...] or null (events need a permission)}.
"""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

NVML_SUCCESS = 0
NVML_ERROR_INVALID_ARGUMENT = 2
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NO_PERMISSION = 4
NVML_ERROR_NOT_FOUND = 6
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_TIMEOUT = 10
NVML_ERROR_GPU_IS_LOST = 15
NVML_CLOCK_SM = 1
NVML_CLOCK_MEM = 2
NVML_TEMPERATURE_GPU = 0
NVML_FI_DEV_POWER_INSTANT = 186
NVML_POWER_SCOPE_GPU = 0
NVML_POWER_SCOPE_MODULE = 1
NVML_DEVICE_MIG_ENABLE = 1
nvmlEventTypeXidCriticalError = 8  # noqa: N816
TICK_S = 0.1
SENSOR_S = 0.025


class NVMLLibraryMismatchError(Exception):
    """As the real one no NVMLError: the driver's library lacks a function."""


class NVMLError(Exception):
    """As the real one: NVMLError(code) is an instance of the code's own class."""

    _classes: ClassVar = {}
    _texts: ClassVar = {
        NVML_ERROR_INVALID_ARGUMENT: "Invalid Argument",
        NVML_ERROR_NOT_SUPPORTED: "Not Supported",
        NVML_ERROR_NO_PERMISSION: "Insufficient Permissions",
        NVML_ERROR_NOT_FOUND: "Not Found",
        NVML_ERROR_DRIVER_NOT_LOADED: "Driver Not Loaded",
        NVML_ERROR_GPU_IS_LOST: "GPU is lost",
    }

    def __new__(cls, value):
        error = Exception.__new__(cls._classes.get(value, cls) if cls is NVMLError else cls)
        error.value = value
        return error

    def __str__(self):
        return self._texts.get(self.value, f"NVML Error with code {self.value}")


def _error_class(name, value):
    made = type(name, (NVMLError,), {"__new__": lambda cls, *_: NVMLError.__new__(cls, value)})
    NVMLError._classes[value] = made
    return made


NVMLError_InvalidArgument = _error_class("NVMLError_InvalidArgument", NVML_ERROR_INVALID_ARGUMENT)
NVMLError_NotSupported = _error_class("NVMLError_NotSupported", NVML_ERROR_NOT_SUPPORTED)
NVMLError_NoPermission = _error_class("NVMLError_NoPermission", NVML_ERROR_NO_PERMISSION)
NVMLError_NotFound = _error_class("NVMLError_NotFound", NVML_ERROR_NOT_FOUND)
NVMLError_DriverNotLoaded = _error_class("NVMLError_DriverNotLoaded", NVML_ERROR_DRIVER_NOT_LOADED)
NVMLError_GpuIsLost = _error_class("NVMLError_GpuIsLost", NVML_ERROR_GPU_IS_LOST)


def _devices():
    path = os.environ.get("FAKE_NVML")
    if not path:
        raise NVMLError(NVML_ERROR_DRIVER_NOT_LOADED)
    return json.loads(Path(path).read_text())


def nvmlInit():  # noqa: N802
    _devices()


def nvmlSystemGetDriverVersion():  # noqa: N802
    return "595.10"


def nvmlDeviceGetVbiosVersion(handle):  # noqa: N802
    return "96.00.89.00.01"


def nvmlDeviceGetHandleByUUID(uuid):  # noqa: N802
    if not uuid.startswith(("GPU-", "MIG-")):
        raise NVMLError(NVML_ERROR_INVALID_ARGUMENT)
    for device in _devices():
        if uuid == device["uuid"]:
            return uuid
    raise NVMLError(NVML_ERROR_NOT_FOUND)


def _alive(uuid):
    device = next(d for d in _devices() if d["uuid"] == uuid)
    if device.get("lost_at_s") is not None and time.perf_counter() >= device["lost_at_s"]:
        raise NVMLError(NVML_ERROR_GPU_IS_LOST)
    return device


def true_energy_j(device, start_s, end_s):
    """What the device really used between two times."""
    total, low = 0.0, start_s
    for until_s, watts in device["power"]:
        high = end_s if until_s is None else min(max(until_s, low), end_s)
        total += (high - low) * watts
        low = high
    return total


def _last_tick_s():
    return time.perf_counter() // TICK_S * TICK_S


def nvmlDeviceGetTotalEnergyConsumption(handle):  # noqa: N802
    device = _alive(handle)
    kind = device.get("energy", "counter")
    if kind == "unsupported":
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    if kind == "no_permission":
        raise NVMLError(NVML_ERROR_NO_PERMISSION)
    if kind == "frozen":
        return 12345
    since_s, now_s = device.get("loaded_at_s", 0.0), _last_tick_s()
    reset_s = device.get("reset_at_s")
    if reset_s is not None and now_s >= reset_s:
        since_s = reset_s
    return int(true_energy_j(device, since_s, now_s) * 1e3)


def nvmlDeviceGetPowerUsage(handle):  # noqa: N802
    device = _alive(handle)
    tick_s = _last_tick_s()
    return int(true_energy_j(device, tick_s - SENSOR_S, tick_s) / SENSOR_S * device.get("power_scale", 1.0) * 1e3)


def nvmlDeviceGetFieldValues(handle, field_ids):  # noqa: N802
    device = _alive(handle)
    return [_field(device, handle, *field) for field in field_ids]


def _field(device, handle, field_id, scope):
    if scope == NVML_POWER_SCOPE_MODULE and device.get("module") is not None:
        return SimpleNamespace(nvmlReturn=NVML_SUCCESS, value=SimpleNamespace(uiVal=int(device["module"] * 1e3)))
    if scope == NVML_POWER_SCOPE_GPU and field_id == NVML_FI_DEV_POWER_INSTANT:
        return SimpleNamespace(nvmlReturn=NVML_SUCCESS, value=SimpleNamespace(uiVal=nvmlDeviceGetPowerUsage(handle)))
    return SimpleNamespace(nvmlReturn=NVML_ERROR_NOT_SUPPORTED, value=SimpleNamespace(uiVal=0))


def nvmlDeviceGetClockInfo(handle, kind):  # noqa: N802
    _alive(handle)
    return 1755 if kind == NVML_CLOCK_SM else 2619


def nvmlDeviceGetMaxClockInfo(handle, kind):  # noqa: N802
    _alive(handle)
    return 1980


def nvmlDeviceGetTemperature(handle, sensor):  # noqa: N802
    _alive(handle)
    return 56


def nvmlDeviceGetEnforcedPowerLimit(handle):  # noqa: N802
    _alive(handle)
    return 700_000


def nvmlDeviceGetMemoryInfo(handle):  # noqa: N802
    _alive(handle)
    return SimpleNamespace(used=3 * 2**30, total=80 * 2**30, free=77 * 2**30)


def nvmlDeviceGetCurrentClocksEventReasons(handle):  # noqa: N802
    return _alive(handle).get("throttle", 0)


nvmlDeviceGetCurrentClocksThrottleReasons = nvmlDeviceGetCurrentClocksEventReasons  # noqa: N816


def nvmlDeviceGetComputeRunningProcesses(handle):  # noqa: N802
    if _alive(handle).get("old_driver"):
        raise NVMLLibraryMismatchError("Unversioned function called and the NVML version is too old")
    return [SimpleNamespace(pid=pid, usedGpuMemory=2**30) for pid in _alive(handle).get("processes", [])]


def nvmlDeviceIsMigDeviceHandle(handle):  # noqa: N802
    return handle.startswith("MIG-")


def nvmlDeviceGetMigMode(handle):  # noqa: N802
    if "mig" not in _alive(handle):
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return [int(_alive(handle)["mig"])] * 2


def nvmlDeviceGetTotalEccErrors(handle, kind, since):  # noqa: N802
    if not (ecc := _alive(handle).get("ecc")):
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return ecc.get(f"{('corrected', 'uncorrected')[kind]}_{('volatile', 'aggregate')[since]}", 0)


def nvmlDeviceGetRemappedRows(handle):  # noqa: N802
    if not (rows := _alive(handle).get("rows")):
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return tuple(rows)


def nvmlEventSetCreate():  # noqa: N802
    return SimpleNamespace(handles=[], read=0)


def nvmlEventSetFree(events):  # noqa: N802
    events.handles.clear()


def nvmlDeviceRegisterEvents(handle, kinds, events):  # noqa: N802
    if _alive(handle).get("xids", []) is None:
        raise NVMLError(NVML_ERROR_NO_PERMISSION)
    events.handles.append(handle)


def nvmlEventSetWait_v2(events, timeout_ms):  # noqa: N802
    xids = [number for handle in events.handles for number in _alive(handle).get("xids", [])]
    if events.read >= len(xids):
        raise NVMLError(NVML_ERROR_TIMEOUT)
    events.read += 1
    return SimpleNamespace(eventType=nvmlEventTypeXidCriticalError, eventData=xids[events.read - 1])
