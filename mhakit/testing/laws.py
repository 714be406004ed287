"""What every head combination must keep: each function says of a trial what is broken, or None."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhakit.plugin_api import CombinationCost, CombinationPlan
from mhakit.testing.slopes import gradient, sides_of
from mhakit.testing.trial import Extreme, Trial

__all__ = ["RULES", "Law"]

Array = NDArray[Any]

LONG = 1000
"""Terms of a sum that is longer than any in a trial."""


def shapes(trial: Trial) -> str | None:
    """Combine some words, no words and no batch."""
    B, H, T, E, M = trial.case
    for batch, words in ((B, T), (B, 0), (0, T)):
        output = trial.run(trial.heads[:batch, :, :words], trial.hidden[:batch, :words])
        if output.shape != (batch, words, M):
            return f"heads {(batch, H, words, E)} became {output.shape}"
    return None


def dtype(trial: Trial) -> str | None:
    """Follow float32 through the answers of the plugin's own code."""
    answer, _ = trial.ask_directly(np.float32)
    parts: list[tuple[str, Any]] = [("forward's output", answer)]
    if isinstance(answer, CombinationPlan):
        parts = [(field, getattr(answer, field)) for field in ("head_weights", "weight", "bias")]
    answers: list[tuple[str, Any]] = []
    spy = trial.spied(answers)
    x = trial.hidden.astype(np.float32)
    learned = {name: array.astype(np.float32) for name, array in trial.parameters.items()}
    spy.pull_if_defined(heads=trial.heads.astype(np.float32), hidden=x, parameters=learned)
    for verb, (d_heads, d_hidden, d_parameters) in answers:
        parts += [(f"{verb}'s d_heads", d_heads), (f"{verb}'s d_hidden_states", d_hidden)]
        parts += [(f"{verb}'s gradient of {n!r}", part) for n, part in d_parameters.items()]
    for name, part in parts:
        kind = part.dtype if isinstance(part, np.ndarray | np.generic) else np.dtype(np.float32)
        if kind.kind == "f" and kind != np.float32:
            return f"{name} is {kind.name} for float32 heads"
    return None


def inputs(trial: Trial) -> str | None:
    """Ask with arrays that can be written, and compare them afterwards."""
    names = ("heads", "hidden_states", *(f"parameters[{name!r}]" for name in trial.parameters))
    before = (trial.heads, trial.hidden, *trial.parameters.values())
    _, after = trial.ask_directly(np.float64)
    for name, old, new in zip(names, before, after, strict=True):
        if not np.array_equal(old, new):
            return f"{name} was written"
    return None


def fold(trial: Trial) -> str | None:
    """Compare what runs with the folded matrix."""
    B, H, T, E, M = trial.case
    folded = trial.strategy.fold(trial.parameters, trial.case.shape)
    if folded is None:
        return None
    weight, bias = folded
    if weight.shape != (H * E, M) or (bias is not None and bias.shape != (M,)):
        got = f"{weight.shape} and {None if bias is None else bias.shape}"
        return f"it gives {got} in place of {(H * E, M)} and {(M,)}"
    side_by_side = trial.heads.swapaxes(1, 2).reshape(B, T, H * E)
    expected = side_by_side @ weight + (0 if bias is None else bias)
    return _differ("what runs", trial.run(), "the folded matrix", expected, H * E)


def linear_in_heads(trial: Trial) -> str | None:
    """Try superposition, near 0 and far from it."""
    claim, holds = trial.strategy.linear_in_heads, True
    other = trial.redrawn().heads
    for mode in trial.modes():
        at_zero = trial.run(np.zeros_like(other), **mode)
        for scale in (1.0, 30.0):
            first, second, both = (
                trial.run(scale * z, **mode) - at_zero
                for z in (trial.heads, other, 2 * trial.heads - 3 * other)
            )
            broken = _differ(
                "f(2 Z - 3 Z')", both, "2 f(Z) - 3 f(Z')", 2 * first - 3 * second, 1000
            )
            holds = holds and broken is None
            if claim and broken:
                return f"it says True, but with f(0) taken away {broken}"
    if not claim and holds:
        return "it says False, but f(Z) - f(0) adds up; say linear_in_heads = True"
    return None


def rows(trial: Trial) -> str | None:
    """Change all other rows, and take one out alone."""
    B, T = trial.case.B, trial.case.T
    other = trial.redrawn()
    for mode in trial.modes():
        whole = trial.run(**mode)
        for b, t in ((0, 0), (B - 1, T - 1)):
            z, x = 3 * other.heads, 3 * other.hidden
            z[b, :, t], x[b, t] = trial.heads[b, :, t], trial.hidden[b, t]
            changed = trial.run(z, x, **mode)[b, t]
            what = f"row {t} of batch {b}"
            broken = _differ(what, changed, "it before other rows changed", whole[b, t], LONG)
            if broken:
                return broken
    row = np.s_[B - 1 : B], np.s_[T - 1 : T]
    alone = trial.run(trial.heads[row[0], :, row[1]], trial.hidden[row])
    return _differ("a row alone", alone[0, 0], "it among others", trial.run()[-1, -1], LONG)


def no_heads(trial: Trial) -> str | None:
    """Try what hides every head, and look for NaN and inf."""
    nothing = {name: np.zeros_like(array) for name, array in trial.parameters.items()}
    ways: dict[str, dict[str, Any]] = {
        "heads of 0": {"heads": np.zeros_like(trial.heads)},
        "parameters of 0": {"parameters": nothing},
    }
    if trial.strategy.stochastic:
        for high, word in ((False, "lowest"), (True, "highest")):
            ways[f"the {word} draws"] = {"training": True, "rng": Extreme(high)}
    for what, keywords in ways.items():
        parts = {"output": trial.run(**keywords)}
        gradients = trial.pull_if_defined(**keywords)
        if gradients is not None:
            parts |= {f"gradient of {s.label}": s.gradient for s in sides_of(trial, gradients)}
        for name, part in parts.items():
            if not np.isfinite(part).all():
                return (
                    f"with {what} the {name} has {np.count_nonzero(~np.isfinite(part))} NaN or inf"
                )
    return None


def seed(trial: Trial) -> str | None:
    """Run twice, with other sizes in between."""
    kinds: list[tuple[str, dict[str, Any]]] = [("without training", {"training": False})]
    rng = {"rng": trial.seed} if trial.strategy.stochastic else {}
    kinds.append(("of the same seed", {"training": True, **rng}))
    for what, mode in kinds:
        first = trial.run(**mode)
        trial.redrawn(trial.case._replace(T=trial.case.T + 1)).run(**mode)
        again = trial.run(**mode)
        if not np.array_equal(first, again, equal_nan=True):
            return f"two runs {what} differ by {np.max(np.abs(first - again)):.3g}"
    return None


def cost(trial: Trial) -> str | None:
    """Count the parameters, and take the rank of many rows."""
    said: object = trial.strategy.cost(trial.case.shape, trial.case.B, trial.case.T)
    if not isinstance(said, CombinationCost):
        return f"it is {type(said).__name__} in place of a CombinationCost"
    count = sum(array.size for array in trial.parameters.values())
    if said.parameters != count:
        return f"it says {said.parameters} parameters, there are {count}"
    if said.flops < 0 or said.bytes <= 0:
        return f"it says {said.flops} operations and {said.bytes} bytes"
    words = trial.redrawn(trial.case._replace(B=1, T=2 * trial.case.M + 2))
    output = words.run(parameters=trial.parameters)[0]
    rank = int(np.linalg.matrix_rank(output - output[0]))  # equal rows: exactly 0
    bound = "more than the" if rank > said.output_rank else "not the"
    if rank > said.output_rank or (trial.strategy.linear_in_heads and rank != said.output_rank):
        return f"many rows have rank {rank}, {bound} {said.output_rank} that it says"
    return None


def backends(trial: Trial) -> str | None:
    """Compare with the reference, forward and backward."""
    exact = Trial(trial.strategy, trial.case, "reference", trial.seed)
    terms = max(trial.case.H * trial.case.E, trial.case.M)
    for real in (np.float64, np.float32):
        given: dict[str, Any] = {
            "heads": trial.heads.astype(real),
            "hidden": trial.hidden.astype(real),
            "parameters": {name: array.astype(real) for name, array in trial.parameters.items()},
        }
        pairs = [("output", trial.run(**given), exact.run(**given))]
        mine, its = trial.pull_if_defined(**given), exact.pull_if_defined(**given)
        if mine is not None and its is not None:
            sides = zip(sides_of(trial, mine), sides_of(exact, its), strict=True)
            pairs += [(f"gradient of {a.label}", a.gradient, b.gradient) for a, b in sides]
        for name, a, b in pairs:
            here, there = f"{np.dtype(real).name} {name} on {trial.backend}", "on reference"
            broken = _differ(here, a, there, b, terms * trial.case.B * trial.case.T)
            if broken:
                return broken
    return None


def one_head(trial: Trial) -> str | None:
    """Try the laws of shapes, gradient and fold on one head."""
    if not np.isfinite(trial.run()).all():
        return "the output has NaN or inf"
    for law in (shapes, gradient, fold):
        broken = law(trial)
        if broken:
            return broken
    return None


def _differ(first: str, a: Array, second: str, b: Array, terms: int) -> str | None:
    """Say by how much two results differ, if by more than rounding a sum of so many terms does."""
    allowed = 8 * terms * float(np.finfo(a.dtype).eps) * float(np.max(np.abs(b), initial=1))
    error = float(np.max(np.abs(a.astype(np.float64) - b), initial=0))
    if error <= allowed:
        return None
    return f"{first} differs from {second} by {error:.3g}, allowed {allowed:.1g}"


class Law(NamedTuple):
    """A law in words, how it is tried, and how many heads it is tried on."""

    words: str
    broken: Callable[[Trial], str | None]
    heads: tuple[int, ...] = (2, 3, 4, 6, 8)


RULES: dict[str, Law] = {
    "inputs": Law(
        "heads, hidden states and parameters are never written, not even where they could be",
        inputs,
    ),
    "shapes": Law(
        "(B, H, T, E) becomes (B, T, M), with no words and no batch too",
        shapes,
    ),
    "dtype": Law(
        "float32 goes through plan, forward and the gradients without becoming float64",
        dtype,
    ),
    "gradient": Law(
        "gradients are the slopes that finite differences in float64 find",
        gradient,
    ),
    "fold": Law(
        "where fold gives a matrix, concat(Z) @ matrix + bias is what runs",
        fold,
    ),
    "linear_in_heads": Law(
        "f(Z) - f(0) is linear in Z exactly where the class says so",
        linear_in_heads,
    ),
    "rows": Law(
        "row t of Y depends on row t of Z and x alone",
        rows,
    ),
    "no_heads": Law(
        "all heads hidden, masked or dropped: output and gradients stay finite",
        no_heads,
    ),
    "seed": Law(
        "the same seed gives the same result, and without training nothing is drawn",
        seed,
    ),
    "cost": Law(
        "the cost counts the learned numbers, and its rank is that of the output",
        cost,
    ),
    "backends": Law(
        "every backend computes the same, forward and backward, in float64 and float32",
        backends,
    ),
    "one_head": Law(
        "one head works like any number, or validate refuses it by a ParameterError",
        one_head,
        heads=(1,),
    ),
}
