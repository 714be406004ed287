"""What `mhakit combinations` and `mhakit info` tell, as plain dictionaries."""

from __future__ import annotations

import math
import platform
from importlib import metadata
from typing import Any

import mhakit
from mhakit import api, backends, registry
from mhakit.api.parameters import ask_parameters
from mhakit.errors import MhakitError
from mhakit.plugin_api import HeadShape

__all__ = ["combination_rows", "machine_facts"]


def combination_rows(num_heads: int, head_width: int, model_width: int) -> list[dict[str, Any]]:
    """Return for each installed combination where it is from and its size at these sizes."""
    shape = HeadShape(num_heads, head_width, model_width)
    rows = []
    for record in api.combinations():
        row: dict[str, Any] = {
            "name": record.name,
            "paper": record.reference,
            "distribution": record.distribution,
            "version": record.version,
            "parameters": None,
        }
        try:
            specs = ask_parameters(registry.resolve(record.name), shape)
            row["parameters"] = sum(math.prod(spec.shape) for spec in specs.values())
        except MhakitError as error:
            row["why_not"] = str(error)
        rows.append(row)
    return rows


def machine_facts() -> dict[str, Any]:
    """Return versions, what the CPU backend runs on, and what is installed to be asked by name."""
    reasons = backends.availability()
    told: dict[str, Any] = {
        "mhakit": mhakit.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "numpy": metadata.version("numpy"),
    }
    if reasons["cpu"] is None:
        told |= backends.select("cpu").machine()
    told["score_mods"] = {
        f"{mod.name}({mod.options})": f"{mod.distribution} {mod.version}"
        for mod in api.score_mods()
    }
    told["mixings"] = {
        mixing.name: f"{mixing.distribution} {mixing.version}" for mixing in api.mixings()
    }
    told["backends"] = reasons
    return told
