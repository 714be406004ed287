"""What each word looks at most: a table a layer, or one head in full."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mhakit.cli.report import SAMPLE_NAME, Combined, LayerReport, Report
from mhakit.cli.views.terminal import counted, plain_console

__all__ = ["show_heads"]

WIDEST_TOKEN = 14
LEAD = 15
"""Columns that the head's number and entropy take, left of the words."""
DIGITS, GAP = 3, 2
"""Columns of a weight, and between two words."""
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def show_heads(report: Report) -> None:
    """Print what each word looks at most: a table a layer, or one head in full."""
    console = plain_console()
    tokens, words = report.sentence.tokens, report.words
    name = f"model {report.model}" if report.model else f"embedded sample {SAMPLE_NAME}"
    console.print(Text(report.sentence.text, style="bold"))
    console.print(
        Text(
            f"{counted(len(words), 'token')} and {len(tokens) - len(words)} of the model's own; "
            f"{name}: {counted(report.num_layers, 'layer')} of "
            f"{counted(report.num_heads, 'head')}, counted from 0",
            style="dim",
        )
    )
    console.print()
    single = len(report.layers) == 1 and len(report.layers[0].heads) == 1
    place = "Right of" if single else "Below"
    console.print(
        Text(
            f"{place} each word: what it looks at most, and the weight. Entropy in nats, "
            f"mean over the words: 0.00 is one source alone, {math.log(len(tokens)):.2f} all "
            f"{len(tokens)} alike."
        )
    )
    for layer in report.layers:
        console.print()
        if single:
            _show_one_head(console, report, layer)
        else:
            _show_layer(console, report, layer)
        _show_combined(console, report, layer)
    known = _known(report, single)
    if known:
        console.print()
        console.print(Text(known, style="italic"))


def _show_layer(console: Console, report: Report, layer: LayerReport) -> None:
    """Print one row a head and one column a word, as many columns as the terminal holds."""
    console.print(Text(f"Layer {layer.layer}", style="bold"))
    names = _names(report.sentence.tokens)
    for block in _blocks(report, names, max(console.width - LEAD, 1)):
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        table.add_column("head", justify="right", no_wrap=True)
        table.add_column("entropy", justify="right", no_wrap=True)
        for word in block:
            table.add_column(Text(names[word]), no_wrap=True)
        columns = [_cells(report, layer, names, word) for word in block]
        for place, head in enumerate(layer.heads):
            entropy = layer.entropy[place][report.words].mean()
            table.add_row(str(head), f"{entropy:.2f}", *(column[place] for column in columns))
        console.print(table)


def _show_one_head(console: Console, report: Report, layer: LayerReport) -> None:
    """Print each word with its three strongest sources and a bar for the first."""
    entropy = layer.entropy[0][report.words].mean()
    console.print(
        Text(f"Layer {layer.layer}, head {layer.heads[0]}", style="bold")
        + Text(f"   entropy {entropy:.2f}", style="not bold")
    )
    tokens = _names(report.sentence.tokens)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for justify in ("right", "left", "left", "left", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for word in report.words:
        row = layer.weights[0, word]
        first, *others = (-row).argsort(kind="stable")[:3]
        then = "  ".join(f"{tokens[s]} {_weight(row[s])}" for s in others)
        table.add_row(
            Text(tokens[word], style="bold"),
            Text(f"→ {tokens[first]}"),
            _weight(row[first]),
            Text("█" * round(20 * float(row[first])) or "▏", style="blue"),
            Text(f"then {then}" if then else "", style="dim"),
        )
    console.print(table)


def _show_combined(console: Console, report: Report, layer: LayerReport) -> None:
    """Print what became of the heads, and with another combination how far it is off."""
    combined = layer.combined
    if combined.trained is None or combined.cosines is None:
        line = f"combined by {combined.combination}: {_norms(report, combined)}"
    else:
        made = f" ({', '.join(combined.fresh)} new, seed 0)" if combined.fresh else ""
        cosine = combined.cosines[report.words].mean()
        own = combined.trained
        line = (
            f"combined by {combined.combination}{made}: {_norms(report, combined)}\n"
            f"trained ({own.combination}): {_norms(report, own)}; cosine with it {cosine:.2f}"
        )
    console.print(Text(line, style="cyan"))


def _norms(report: Report, combined: Combined) -> str:
    words = report.words
    return (
        f"norm {combined.norms[words].mean():.2f}, "
        f"{combined.relative[words].mean():.2f} of the input's"
    )


def _known(report: Report, single: bool) -> str:
    """Return what is known of the heads that are shown, for the sample alone."""
    if report.model is not None:
        return ""
    shown = {(layer.layer, head) for layer in report.layers for head in layer.heads}
    cat = report.sentence.text.strip(" .").lower() == "the cat sat on the mat"
    known = [
        line
        for head, line, holds in (
            ((0, 2), "layer 0 head 2 looks at the previous word", True),
            ((5, 11), 'layer 5 head 11 at "cat"', cat),
        )
        if holds and head in shown
    ]
    lines = [f"Known: {', '.join(known)}."] if known else []
    if len(shown) == report.num_layers * report.num_heads:
        lines.append("Most heads of layers 1 to 4 rest on [CLS], a token of the model's own.")
    if known and not single:
        layer, head = (5, 11) if cat and (5, 11) in shown else (0, 2)
        lines.append(f"Look nearer with --layer {layer} --head {head}, or draw with --plot.")
    return "\n".join(lines)


def _cells(report: Report, layer: LayerReport, names: Sequence[str], word: int) -> list[Text]:
    """Return one column: each head's strongest source and, one below the other, the weights."""
    sources = [int(source) for source in layer.strongest[:, word]]
    wide = max(cell_len(names[source]) for source in sources)
    column = []
    for place, source in enumerate(sources):
        weight = float(layer.weights[place, word, source])
        faint = bool(report.sentence.special[source]) or weight < 0.3
        style = "dim" if faint else "bold" if weight >= 0.6 else ""
        gap = " " * (wide - cell_len(names[source]))
        column.append(Text(f"{names[source]}{gap} {_weight(weight)}", style=style))
    return column


def _names(tokens: Sequence[str]) -> list[str]:
    """Return the tokens, a repeated one with its number: the, cat, …, the²."""
    names, count = [], Counter[str]()
    for token in tokens:
        count[token] += 1
        clipped = token if len(token) <= WIDEST_TOKEN else token[: WIDEST_TOKEN - 1] + "…"
        names.append(clipped if count[token] == 1 else f"{clipped}{_raised(count[token])}")
    return names


def _blocks(report: Report, names: Sequence[str], room: int) -> list[list[int]]:
    """Return the words in runs no wider than the room, at least one a run, alike in all layers."""
    blocks: list[list[int]] = []
    used = room
    for word in map(int, report.words):
        sources = {int(s) for layer in report.layers for s in layer.strongest[:, word]}
        cell = max(cell_len(names[source]) for source in sources) + 1 + DIGITS
        width = max(cell, cell_len(names[word])) + GAP
        if used + width - GAP > room:
            blocks.append([])
            used = 0
        blocks[-1].append(word)
        used += width
    return blocks


def _raised(number: int) -> str:
    return str(number).translate(RAISED)


def _weight(weight: float) -> str:
    """Return two digits: ``.89``, and ``1.0`` from .995 on."""
    return f"{weight:.2f}".lstrip("0") if weight < 0.995 else "1.0"
