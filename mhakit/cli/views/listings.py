"""What is installed, and the machine."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from mhakit.cli.views.terminal import plain_console

__all__ = ["show_combinations", "show_info"]


def show_combinations(
    rows: list[dict[str, Any]], num_heads: int, head_width: int, model_width: int
) -> None:
    """Print a table of the combinations that are installed."""
    console = plain_console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("name", "paper", "from"):
        table.add_column(title, overflow="fold")
    table.add_column("parameters", justify="right")
    for row in rows:
        count = row["parameters"]
        table.add_row(
            Text(row["name"], style="bold"),
            Text(row["paper"]),
            Text(f"{row['distribution']} {row['version']}"),
            "-" if count is None else f"{count:,}",
        )
    console.print(table)
    for row in rows:
        if "why_not" in row:
            console.print(Text(f"{row['name']}: {row['why_not']}"))
    console.print(
        Text(
            f"Parameters at H={num_heads} heads of width E={head_width}, "
            f"model width M={model_width}. Use one:\n"
            'mhakit heads "the cat sat on the mat" --combine NAME',
            style="dim",
        )
    )


def show_info(told: dict[str, Any]) -> None:
    """Print versions, machine and backends."""
    console = plain_console()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in told.items():
        if name == "vector_bytes":
            value = f"{value} bytes, {8 * value} bits"
            name = "vector width"
        if name in ("score_mods", "mixings"):
            value = ", ".join(value)
        if name != "backends":
            table.add_row(name.replace("_", " "), Text(str(value)))
    for name, reason in told["backends"].items():
        table.add_row(f"backend {name}", Text("available" if reason is None else reason))
    console.print(table)
