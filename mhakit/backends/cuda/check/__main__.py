"""``python -m mhakit.backends.cuda.check``: verify and time on a GPU, or check without one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mhakit.backends.cuda.check.variants import VARIANTS
from mhakit.backends.cuda.tiles.kernels import AnyVariant
from mhakit.backends.cuda.tiles.variant import Variant
from mhakit.errors import MhakitError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks asked for; return 0 where all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m mhakit.backends.cuda.check", description=__doc__
    )
    parser.add_argument("--compile", action="store_true", help="compile every variant, no GPU")
    parser.add_argument("--twins", action="store_true", help="run every variant in NumPy, no GPU")
    parser.add_argument("--only", default="", help="variants whose name contains this")
    parser.add_argument("--json", type=Path, help="write the rows there")
    options = parser.parse_args(arguments)
    chosen = [variant for variant in VARIANTS if options.only in variant.name]
    try:
        if options.compile:
            rows = compile_rows(chosen)
        else:  # the kernels that merge run after those that decode
            run = [variant for variant in chosen if isinstance(variant, Variant)]
            rows = twin_rows(run) if options.twins else device_rows(run)
    except MhakitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    wrong = sum(bool(row.get("faults")) for row in rows)
    print(f"{len(rows)} rows, {wrong} with faults")
    return 1 if wrong else 0


def compile_rows(variants: Sequence[AnyVariant]) -> list[dict[str, Any]]:
    """Compile each variant for each architecture; nothing is run."""
    from mhakit.backends.cuda.check.compilation import capabilities_of, compile_variant, faults_of

    rows = []
    for variant in variants:
        for capability in capabilities_of(variant):
            report = compile_variant(variant, capability)
            rows.append(_shown(report.row() | {"faults": faults_of(report)}))
    return rows


def twin_rows(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """Run each variant's source with NumPy against float64."""
    from mhakit.backends.cuda.check.trials import trial_of
    from mhakit.backends.cuda.check.twins import run_twin
    from mhakit.backends.cuda.tiles.memory import Fault
    from mhakit.testing import assert_within

    rows, rng = [], np.random.default_rng()
    for variant in variants:
        faults = []
        trial = trial_of(variant, rng)
        try:
            output, lse = run_twin(trial.problem, variant)
            assert_within(output, trial.output, "output")
            assert_within(lse, trial.lse, "lse")
        except (Fault, AssertionError) as fault:
            faults.append(str(fault))
        rows.append(_shown({"variant": variant.name, "faults": faults}))
    return rows


def device_rows(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """Verify each variant on the GPU, then time."""
    from mhakit.backends.cuda.check.device import require_device, time_all, verify

    name = require_device()
    from mhakit.backends.cuda.check.bandwidth import time_bandwidth

    rows, rng = [], np.random.default_rng()
    for variant in variants:
        faults = []
        try:
            verify(variant, rng)
        except AssertionError as fault:
            faults.append(str(fault))
        rows.append(_shown({"device": name, "variant": variant.name, "faults": faults}))
    if not any(row["faults"] for row in rows):
        timed = [*time_all(), *time_bandwidth("bfloat16"), *time_bandwidth("float32")]
        rows += [_shown({"device": name} | row) for row in timed]
    return rows


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Print a row as it comes."""
    parts = [f"{x:.3f}" if isinstance(x, float) else f"{x}" for x in row.values() if x != []]
    print("  ".join(parts), flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
