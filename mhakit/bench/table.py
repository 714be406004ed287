"""The table in a terminal: a line as soon as its row is measured, the headline last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

from mhakit.bench.measuring import Result
from mhakit.bench.rows import wanted

__all__ = ["Table"]

WIDTHS = {"family": 21, "shape": 31, "against": 19, "measured": 9, "spread": 15, "at least": 12}
MARKS = {True: ("yes", "green"), False: ("NO", "bold red"), None: ("", "")}


class Table:
    """Print results one by one."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(markup=False, emoji=False, highlight=False)

    def begin(self, facts: dict[str, Any]) -> None:
        """Print the machine and the head of the table."""
        versions = ", ".join(
            f"{name} {version}" if version else f"{name} not installed"
            for name, version in facts["versions"].items()
        )
        self._print(
            Text(
                f"{facts['cpu']}, {facts['threads']} threads, registers of "
                f"{facts['vector_bytes']} bytes, matmul {facts['matmul_gflops']:.0f} GFLOP/s "
                f"({facts['matmul_by']}), read {facts['read_gb_per_second']:.0f} GB/s "
                f"({facts['read_by']}); {versions}; {facts['date']}",
                style="dim",
            )
        )
        self._print(Text("".join(f"{n:{w}}" for n, w in WIDTHS.items()) + "met", style="bold"))

    def show(self, result: Result) -> None:
        """Print one line."""
        mark, style = MARKS[result.met]
        if result.wrong:
            mark, style = "WRONG", "bold red"
        if result.measured is None:
            figures = f"{'-':9}{'':15}"
        elif result.low is None:
            figures = f"{result.measured:<9,.2f}{'':15}"
        else:
            spread = f"{result.low:.2f} to {result.high:.2f}"
            figures = f"{result.measured:<9.3f}{spread:15}"
        shape, against = WIDTHS["shape"], WIDTHS["against"]
        line = Text(f"{result.family:21}{result.shape:{shape}}{result.against:{against}}")
        line.append(figures)
        line.append(f"{wanted(result.target, result.stretch, result.at_most):12}")
        line.append(f"{mark:5}", style=style)
        line.append(f" {result.note}", style="dim")
        self._print(line)

    def end(self, results: Iterable[Result], headline: float | None) -> None:
        """Print what was missed, and the headline."""
        told = list(results)
        missed = sum(result.met is False for result in told)
        held = sum(result.met is not None for result in told)
        self._print(Text(f"{held - missed} of {held} targets reached", style="dim"))
        mean = "nothing to take it of" if headline is None else f"{headline:.3f}"
        self._print(Text(f"geometric mean of the ratios to peers: {mean}", style="bold"))

    def _print(self, line: Text) -> None:
        line.rstrip()
        self._console.print(line, soft_wrap=True)
