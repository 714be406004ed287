"""The figures of PERFORMANCE.md: ``python docs/performance.py measure`` and then ``draw``.

``measure`` writes performance.json, each time the median of turns with the peer, checked as
`mhakit bench` checks; it takes a minute. ``draw`` makes performance.svg of it (extra ``plot``).
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
FIGURES = HERE / "performance.json"
LENGTHS = (16, 64, 256, 1024, 4096)


def sweeps():
    """Return what is measured: a name, the letter that grows, and the calls by its value."""
    from mhakit.bench.rows import Attention
    from mhakit.testing import Sizes

    def square(T, H=8, D=64, **more):
        return Attention(Sizes(1, H, H, T, T, D, D), **more)

    return [
        ("dense", "T = S", {T: square(T) for T in LENGTHS}),
        ("causal", "T = S", {T: square(T, causal=True) for T in LENGTHS}),
        ("window of 257", "T = S", {T: square(T, window=(128, 128)) for T in LENGTHS[2:]}),
        (
            "decoding",
            "S",
            {S: Attention(Sizes(1, 32, 8, 1, S, 128, 128)) for S in (64, 256, 1024, 4096, 16384)},
        ),
        ("width", "D", {D: square(1024, D=D) for D in (16, 32, 64, 80, 96, 128, 192, 256)}),
        ("heads", "H", {H: square(512, H=H) for H in (1, 2, 3, 4, 8, 16, 32)}),
    ]


def figures(only):
    """Return the seconds of mhakit and of torch for every point."""
    from mhakit.bench.contest import load_peers
    from mhakit.bench.machine import facts
    from mhakit.bench.measuring import contest
    from mhakit.bench.rows import Row
    from mhakit.bench.timing import Effort, take_turns

    load_peers()
    told = {}
    for name, letter, works in sweeps():
        if only and name not in only:
            continue
        points = told.setdefault(name, {"letter": letter, "points": []})["points"]
        for value, work in works.items():
            made = contest(Row(name, work, ()))
            timings = take_turns(made.mine, made.peers["torch"]().call, Effort(0.1, 5, 0.8, 5e-4))
            points.append([value, median(timings.mine), median(timings.peer)])
    return {"machine": facts(), "sweeps": told}


def measure():
    """Measure with two threads, and the dense sweep with one, each in a process of its own."""
    from mhakit.bench.process import environment

    told = {}
    for threads, only in ((2, []), (1, ["dense"])):
        done = subprocess.run(
            [sys.executable, __file__, "figures", *only],
            env={**os.environ, **environment(threads)},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        told[str(threads)] = json.loads(done.stdout)
    text = json.dumps(told, indent=None, separators=(", ", ": "))
    FIGURES.write_text(text.replace(', "', ',\n"') + "\n")


def draw():
    """Draw performance.svg."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "mhakit"}
    plt.rcParams |= {"font.size": 9, "axes.titlesize": 9}
    told = json.loads(FIGURES.read_text())
    sweeps, alone = told["2"]["sweeps"], told["1"]["sweeps"]["dense"]["points"]
    colours = {"dense": "C0", "causal": "C2", "window of 257": "C1", "decoding": "C3"}
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
    for axis, names in (
        (axes[0, 0], ("dense", "causal", "window of 257")),
        (axes[0, 1], ("decoding",)),
    ):
        for name in names:
            x, mine, torch = zip(*sweeps[name]["points"], strict=True)
            axis.loglog(x, [1e3 * s for s in mine], "o-", ms=3, color=colours[name], label=name)
            if name != "window of 257":  # torch computes all of T * S under a mask
                axis.loglog(x, [1e3 * s for s in torch], "--", color=colours[name])
        axis.set(xlabel=sweeps[names[0]]["letter"], ylabel="milliseconds")
        axis.legend(frameon=False, title="solid mhakit, dashed torch", title_fontsize=8)
    axes[0, 0].set_title("H = 8, D = 64")
    axes[0, 1].set_title("one target, H = 32, G = 8, D = 128")

    x, mine, torch = zip(*sweeps["dense"]["points"], strict=True)
    ours = [one[1] / two for one, two in zip(alone, mine, strict=True)]
    theirs = [one[2] / two for one, two in zip(alone, torch, strict=True)]
    axes[0, 2].semilogx(x, ours, "o-", ms=3, label="mhakit")
    axes[0, 2].semilogx(x, theirs, "--", color="C0", label="torch")
    axes[0, 2].set(xlabel="T = S", ylabel="two threads over one", ylim=(0, 2.2), title="dense")
    axes[0, 2].legend(frameon=False)

    for axis, name, flops in (
        (axes[1, 0], "width", lambda D: 4 * 8 * 1024**2 * D),
        (axes[1, 1], "heads", lambda H: 4 * H * 512**2 * 64),
    ):
        x, mine, torch = zip(*sweeps[name]["points"], strict=True)
        for seconds, style, who in ((mine, "o-", "mhakit"), (torch, "--", "torch")):
            rates = [flops(n) / s / 1e9 for n, s in zip(x, seconds, strict=True)]
            axis.plot(x, rates, style, ms=3, color="C0", label=who)
        rate = told["2"]["machine"]["matmul_gflops"]
        axis.axhline(rate, color="0.6", lw=1)
        axis.annotate("a product of matrices", (x[-1], rate), ha="right", va="top", color="0.4")
        axis.set(xlabel=sweeps[name]["letter"], ylabel="GFLOP/s", ylim=(0, None))
        axis.legend(frameon=False, loc="lower right")
    axes[1, 0].set_title("dense, H = 8, T = S = 1024")
    axes[1, 1].set_title("dense, D = 64, T = S = 512")

    x, mine, _ = zip(*sweeps["decoding"]["points"], strict=True)
    read = [2 * 8 * s * 128 * 4 / t / 1e9 for s, t in zip(x, mine, strict=True)]
    axes[1, 2].semilogx(x, read, "o-", ms=3, color="C3")
    axes[1, 2].axhline(told["2"]["machine"]["read_gb_per_second"], color="0.6", lw=1)
    axes[1, 2].set(xlabel="S", ylabel="GB/s of keys and values", title="decoding", ylim=(0, None))
    for axis in axes.flat:
        axis.minorticks_off()  # half of the file
    figure.savefig(HERE / "performance.svg", metadata={"Date": None})


if __name__ == "__main__":
    if sys.argv[1] == "figures":
        print(json.dumps(figures(sys.argv[2:])))
    else:
        {"measure": measure, "draw": draw}[sys.argv[1]]()
