"""The commands: read the options, ask the library, hand the answer to a view."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

import mhakit
from mhakit.cli import facts, views
from mhakit.errors import MhakitError, MhakitWarning

__all__ = ["command"]


class Failure(click.ClickException):
    """One of mhakit's errors, shown as one line, exit code 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to stderr."""
        click.echo(f"mhakit: {' '.join(self.message.split())}", err=True)


class Group(click.Group):
    """Commands whose errors and warnings of mhakit's own come out as one line each."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        with _plain_warnings():
            try:
                return super().invoke(ctx)
            except MhakitError as error:
                raise Failure(str(error)) from error


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show mhakit's warnings without the line of source they came from."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, MhakitWarning):
            click.echo(f"mhakit: warning: {' '.join(str(message).split())}", err=True)
        else:
            usual(message, category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


class Numbers(click.ParamType[tuple[int, ...]]):
    """A number or several with commas between."""

    name = "N[,N…]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers of one option."""
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"must be a number, or several with commas between, got {value!r}", param)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mhakit.__version__, message="mhakit %(version)s")
def command() -> None:
    """Multi-head attention, open to inspection.

    Start with:  mhakit heads "the cat sat on the mat"
    """


@command.command()
@click.argument("sentence")
@click.option("--layer", "layers", type=Numbers(), multiple=True, help="Only these, from 0.")
@click.option("--head", "heads", type=Numbers(), multiple=True, help="Only these, from 0.")
@click.option("--combine", "combination", metavar="NAME", help="Combine the heads in this way.")
@click.option("--model", metavar="DIR", help="A BERT checkpoint; default: the embedded sample.")
@click.option("--plot", metavar="FILE", help="Draw heat maps to a .svg, .png or .pdf file.")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON, on stdout alone.")
def heads(
    sentence: str,
    layers: tuple[tuple[int, ...], ...],
    heads: tuple[tuple[int, ...], ...],
    combination: str | None,
    model: str | None,
    plot: str | None,
    as_json: bool,
) -> None:
    """Show what each word of SENTENCE looks at, head by head, in a real encoder.

    Layers and heads are counted from 0. Options take a number, or several: --head 2 --head 8,
    or --head 2,8. With --combine the heads stay those of the trained network, and what comes of
    combining them is held against the layer's own.
    """
    from mhakit import analysis, models, registry
    from mhakit.cli import report

    picture = None if plot is None else analysis.picture_path(plot)
    if combination is not None:
        registry.resolve(combination)  # an unknown name is told before anything is computed
    encoder = models.load(model)
    at = _chosen("layer", layers, encoder.config.num_layers)
    which = _chosen("head", heads, encoder.config.num_heads)
    told = report.report(encoder.run(sentence), at, which, combination, model)
    if as_json:
        click.echo(json.dumps(told.to_dict(), ensure_ascii=False, allow_nan=False))
    else:
        views.show_heads(told)
    if picture is not None:
        analysis.draw_heads(
            told.weights(), told.sentence.tokens, picture, layers=at, heads=which, title=sentence
        )
        click.echo(f"mhakit: wrote {picture}", err=True)


@command.command()
@click.option("--model-width", type=click.IntRange(1), default=384, show_default=True, help="M")
@click.option("--num-heads", type=click.IntRange(1), default=12, show_default=True, help="H")
@click.option("--head-width", type=click.IntRange(1), help="E  [default: M / H, rounded down]")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def combinations(model_width: int, num_heads: int, head_width: int | None, as_json: bool) -> None:
    """List the ways of combining heads that are installed."""
    width = max(model_width // num_heads, 1) if head_width is None else head_width
    rows = facts.combination_rows(num_heads, width, model_width)
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        views.show_combinations(rows, num_heads, width, model_width)


@command.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def info(as_json: bool) -> None:
    """Tell versions, threads, backends, score mods and mixings: what a bug report needs."""
    told = facts.machine_facts()
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False))
    else:
        views.show_info(told)


@command.command()
@click.option("--layer", "layers", type=Numbers(), multiple=True, help="From 0; the middle one.")
@click.option("--combine", "names", metavar="NAME", multiple=True, help="Only these.")
@click.option("--text", metavar="FILE", help="Sentences, one a line; default: the sample's own.")
@click.option("--model", metavar="DIR", help="A BERT checkpoint; default: the embedded sample.")
@click.option("--steps", type=click.IntRange(1), default=50, show_default=True, help="At most.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the split.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, layer by layer.")
def compare(
    layers: tuple[tuple[int, ...], ...],
    names: tuple[str, ...],
    text: str | None,
    model: str | None,
    steps: int,
    seed: int,
    as_json: bool,
) -> None:
    """Compare ways of combining on the frozen heads of a real encoder.

    Each is refitted to give what the layer gives, and measured on sentences that were held out:
    its parameters, work, output rank and time, and how much of the layer's output it recovers. A
    layer takes about a minute; over several, the mean is shown.
    """
    from mhakit import api, models, registry
    from mhakit.cli import probe

    chosen = names or tuple(record.name for record in api.combinations())
    for name in chosen:
        registry.resolve(name)  # an unknown name is told before anything is computed
    sentences = models.read_sentences(text)
    encoder = models.load(model)
    at = _chosen("layer", layers or ((encoder.config.num_layers // 2,),), encoder.config.num_layers)
    told = probe.probe(encoder, model, sentences, at, chosen, steps, seed, views.progress)
    if as_json:
        click.echo(json.dumps(told.to_dict(), ensure_ascii=False, allow_nan=False))
    else:
        views.show_probe(told)


@command.command("new-plugin")
@click.argument("name")
@click.option(
    "--description",
    default="each head scaled by a learned number",
    metavar="TEXT",
    help="What it does, in half a sentence.",
)
@click.option("--author", metavar="NAME", help="Who holds the copyright.")
@click.option("--directory", default=".", metavar="DIR", help="Where the folder goes; here.")
def new_plugin(name: str, description: str, author: str | None, directory: str) -> None:
    """Write the distribution of a new combination, ready to install and test.

    NAME is what pip will install, such as mhakit-loud; the combination is then called loud. It
    works as it is: each head is scaled by a learned number. Put your own formula in its place.
    """
    from mhakit.cli import scaffold

    folder = scaffold.write_plugin(scaffold.names_of(name), Path(directory), description, author)
    shown = shlex.quote(str(folder))
    click.echo(f"mhakit: wrote {folder}", err=True)
    click.echo(f'pip install -e {shown}"[test]" && pytest {shown}')


@command.command()
@click.option("--only", multiple=True, metavar="PATTERN", help="Rows whose name holds this.")
@click.option("--quick", is_flag=True, help="A few turns a row: a look, no measurement.")
@click.option("--threads", type=click.IntRange(1), help="Threads of every side.  [default: 2]")
@click.option("--list", "listed", is_flag=True, help="Name the rows and what each must reach.")
@click.option("--json", "file", metavar="FILE", help="Write all figures as JSON; - is stdout.")
def bench(
    only: tuple[str, ...], quick: bool, threads: int | None, listed: bool, file: str | None
) -> None:
    """Measure mhakit beside torch, onnxruntime and NumPy, and print the table.

    Each row is checked before it is timed: equal results, as many threads, the peer's fast path.
    Both sides take turns; what is printed is the median of the turns' ratios and their quartiles.
    Peers that are not installed are named.
    """
    from mhakit.bench import process, rows

    chosen = rows.chosen(only)
    if listed:
        click.echo("\n".join(rows.lines(chosen)))
        return
    count = process.default_threads() if threads is None else threads
    if not process.settled(count):
        again = ["bench", *(f"--only={pattern}" for pattern in only), f"--threads={count}"]
        again += ["--quick"] * quick + ([] if file is None else [f"--json={file}"])
        raise SystemExit(process.run_again(again, count))
    from mhakit.bench import report

    if not report.run(chosen, quick=quick, file=file):
        raise SystemExit(1)


@command.command()
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(["float32", "float64"]),
    multiple=True,
    default=("float32", "float64"),
    show_default=True,
    help="Only this; 16-bit arrays use the kernels of float32.",
)
def warmup(dtypes: tuple[str, ...]) -> None:
    """Compile every kernel ahead, so that no first call has to.

    Kernels are kept on disk: in NUMBA_CACHE_DIR, or beside the package where that is not set.
    """
    from mhakit import backends

    cpu = backends.select("cpu")
    folder = cpu.kernel_folder()
    for name, dtype, seconds, cached in cpu.warm_up(dtypes):
        click.echo(f"{name:21} {dtype:8} {'cached' if cached else f'{seconds:.1f} s'}")
    click.echo(f"kernels lie in {folder}")


def _chosen(name: str, given: Sequence[Sequence[int]], count: int) -> tuple[int, ...]:
    """Return the numbers asked for, in order, each once; all where none was."""
    numbers = sorted({number for numbers in given for number in numbers})
    for number in numbers:
        if not 0 <= number < count:
            raise click.BadParameter(
                f"{name} must be between 0 and {count - 1}, got {number}",
                param_hint=f"--{name}",
            )
    return tuple(numbers) if numbers else tuple(range(count))
