"""What each combination recovers and costs, and how far along the probe is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from mhakit.cli.probe import Probe
from mhakit.cli.report import SAMPLE_NAME
from mhakit.cli.views.terminal import counted, plain_console

__all__ = ["progress", "show_probe"]


def show_probe(probe: Probe) -> None:
    """Print a table of what each combination recovers and costs, best first, and what it is not."""
    console = plain_console()
    name = f"model {probe.model}" if probe.model else f"embedded sample {SAMPLE_NAME}"
    layers = ", ".join(map(str, probe.layers))
    mean = f"mean of layers {layers}" if len(probe.layers) > 1 else f"layer {layers}"
    console.print(Text(f"{name}, {mean}, {counted(probe.sentences, 'sentence')}", style="bold"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("combination", overflow="fold")
    for title in ("recovered", "fitted", "parameters", "rank", "kFLOPs", "µs", "steps"):
        table.add_column(title, justify="right")
    rows = probe.means()
    for row in rows:
        if row.recovered is not None:
            table.add_row(
                Text(row.name, style="bold"),
                f"{row.recovered:.2f}",
                f"{row.recovered_fitted:.2f}",
                f"{row.parameters:,}",
                str(row.output_rank),
                f"{(row.flops or 0) / 1000:,.0f}",
                f"{row.microseconds:.2f}",
                str(row.steps),
            )
    console.print(table)
    for row in rows:
        if row.why_not is not None:
            console.print(Text(f"{row.name}: {row.why_not}"))
    console.print(
        Text(
            "recovered: the share of the variance of the layer's own output on held-out words; "
            "fitted: on those it was fitted to, and where that is much more, they were too few "
            "(--text FILE brings more). Operations and time are a word's. Steps of gradient: 0 is "
            "least squares alone; who took all that were allowed may gain by more (--steps)."
        )
    )
    console.print(Text(probe.comparisons[0].note, style="italic"))


def progress(names: Iterable[str]) -> Iterator[str]:
    """Yield the names, and show on a terminal's stderr how far along they are."""
    console = Console(stderr=True)
    yield from track(
        list(names), "comparing", console=console, transient=True, disable=not console.is_terminal
    )
