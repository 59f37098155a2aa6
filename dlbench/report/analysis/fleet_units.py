"""Which node and device a row is of: short node names, devices numbered on their node, and what does not fit."""

import pandas as pd


def add_node_and_device_names(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows with `host_full`, `host`, `slot`, `kind` and `unit`, and what to know about their names.

    A host is named up to the first dot, unless two hosts would then share a name. A device is numbered by its local
    rank; where this names several devices (each job saw one alone), by the order of the UUIDs on its node.
    """
    full = rows["system_hostname"].fillna("").replace("", "unknown")
    host, notes = _shorten_host_names(full)
    on_device = rows["system_device_kind"].ne("cpu") & rows["device_uuid"].notna()
    kind = rows["device_name"].fillna(rows["system_cpu_model"]).fillna("unknown device")
    rows = rows.assign(host_full=full, host=host, kind=kind, slot="")
    devices = rows.loc[on_device, ["host", "device_uuid", "local_rank"]].drop_duplicates()
    if len(devices):
        rows.loc[on_device, "slot"] = _device_numbers_within_host(rows[on_device], devices)
    notes += _moved_device_notes(rows[on_device]) + _name_clash_notes(rows[on_device])
    return rows.assign(unit=rows["host"] + "/" + rows["slot"]), notes


def _shorten_host_names(full: pd.Series) -> tuple[pd.Series, list[str]]:
    names = {name: name.partition(".")[0] for name in full.unique()}
    counts = pd.Series(list(names.values())).value_counts() if names else pd.Series(dtype=int)
    shared = [name for name, count in counts.items() if count > 1]
    notes = [f"Several hosts have the name {name}; they are listed with their full names." for name in shared]
    return full.map({name: name if short in shared else short for name, short in names.items()}), notes


def _device_numbers_within_host(rows: pd.DataFrame, devices: pd.DataFrame) -> pd.Series:
    ranks = devices.groupby(["host", "device_uuid"])["local_rank"].agg(["min", "nunique"])
    held = ranks.groupby(["host", "min"])["min"].transform("size")
    plain = held.eq(1) & ranks["nunique"].eq(1)
    by_order = ranks.groupby("host").cumcount()
    own = plain.groupby("host").transform("all")
    numbers = ranks["min"].where(own, by_order).astype(int).astype(str)
    keys = pd.MultiIndex.from_frame(rows[["host", "device_uuid"]])
    return pd.Series(numbers.reindex(keys).to_numpy(), rows.index)


def _moved_device_notes(rows: pd.DataFrame) -> list[str]:
    """Devices that were seen on several nodes: one was moved, or the records are copies under another name."""
    hosts = rows.groupby("device_uuid")["host"].nunique()
    moved = hosts[hosts > 1]
    if moved.empty:
        return []
    return [
        f"{len(moved)} devices were measured on several nodes (devices moved or nodes renamed), for example "
        f"{moved.index[0]}."
    ]


def _name_clash_notes(rows: pd.DataFrame) -> list[str]:
    """Nodes with more devices than one node has: several machines have one name."""
    seen = rows.groupby("host").agg(found=("device_uuid", "nunique"), held=("system_device_count", "max"))
    # A job may see one device of many.
    most = max(1, int(seen["held"].max())) if len(seen) and seen["held"].notna().any() else 1
    clashing = seen[seen["found"] > max(16, most)]
    return [
        f"{host} has {row.found} devices; perhaps several machines have this name." for host, row in clashing.iterrows()
    ]
