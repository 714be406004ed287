"""The benchmarks' shape; that they run is for asv, which runs each of them once in CI."""

import ast
import importlib
import inspect
import json
import re
import sys
import textwrap

import pytest

from material.places import ROOT
from mhakit.testing import benchmarks

pytestmark = pytest.mark.usefixtures("from_the_checkout")
MODULES = sorted(path.stem for path in (ROOT / "asv_benchmarks").glob("bench_*.py"))


def loaded_of(cls):
    return sys.modules[cls.__module__]


def classes(module):
    loaded = importlib.import_module(f"asv_benchmarks.{module}")
    own = [
        c
        for name, c in inspect.getmembers(loaded, inspect.isclass)
        if c.__module__ == loaded.__name__ and not name.startswith("_")
    ]
    assert own, f"{module} asks no question"
    return own


@pytest.mark.parametrize("module", MODULES)
def test_a_class_asks_one_question_and_names_its_parameters(module):
    for cls in classes(module):
        assert cls.__doc__.splitlines()[0].endswith("?"), cls
        assert len(cls.params) == len(cls.param_names), cls
        timed = [getattr(cls, n) for n in dir(cls) if n.startswith(("time_", "track_", "peakmem_"))]
        assert timed, cls
        for method in timed:
            given = list(inspect.signature(method).parameters)[1:]
            cached = ["told"] if hasattr(loaded_of(cls), "setup_cache") else []
            assert given == [*cached, *cls.param_names], method


def unused(cls):
    """Return the parameters that a benchmark of a class does not depend on, by benchmark.

    A parameter counts as used where setup or the benchmark itself reads it; where it is only handed
    on to another method of the class, that method must read it.
    """

    def reads(name, argument):
        function = inspect.unwrap(getattr(cls, name))
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        handed = {}
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            of = call.func
            if isinstance(of, ast.Attribute) and ast.unparse(of.value) in ("self", "super()"):
                for position, value in enumerate(call.args):
                    if isinstance(value, ast.Name) and value.id == argument:
                        handed[value] = of.attr, position
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Name)
                and node.id == argument
                and isinstance(node.ctx, ast.Load)
            ):
                if node not in handed or "super" in ast.unparse(tree):
                    return True
                method, position = handed[node]
                theirs = list(inspect.signature(getattr(cls, method)).parameters)[1 + position]
                if method != name and reads(method, theirs):
                    return True
        return False

    found = {}
    for name in dir(cls):
        if name.startswith(("time_", "track_", "peakmem_")):
            methods = [m for m in ("setup", name) if hasattr(cls, m)]
            for argument in cls.param_names:
                if not any(reads(method, argument) for method in methods):
                    found.setdefault(name, []).append(argument)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_benchmark_uses_every_parameter_it_declares(module):
    for cls in classes(module):
        assert unused(cls) == {}, cls


def test_a_parameter_that_is_only_declared_or_only_handed_on_is_found():
    class Planted:
        param_names = ("T", "who", "dtype", "D")

        def setup(self, T, who, dtype, D):
            self.size = 2 * T
            self.prepare(who, D)
            self.time_it(T, who, dtype, D)

        def prepare(self, side, D):
            self.side = [side]

        def time_it(self, T, who, dtype, D):
            del dtype

    assert unused(Planted) == {"time_it": ["dtype", "D"]}


def test_peers_are_the_same_list_in_every_environment_and_missing_ones_are_skipped(monkeypatch):
    from asv_benchmarks import bench_attention, bench_decoding, peers
    from mhakit.errors import MissingExtra

    for cls in (bench_attention.Attend, bench_attention.Length, bench_decoding.Decode):
        assert cls.params[-1] == ["mhakit", "numpy", "torch", "onnxruntime", "jax"]

    def missing():
        raise MissingExtra("jax is not installed")

    with pytest.raises(NotImplementedError, match="jax is not installed"):
        peers.peer_of(missing)


@pytest.mark.parametrize(
    ("row", "who", "reason"),
    [
        ("window 256,0 causal 1,4,8192,8192,64", "numpy", "it needs 1024 MiB for scores, more than 512"),
        ("window 256,0 causal 1,4,8192,8192,64", "onnxruntime", "plain attention in float32 only"),
        ("float16 causal 1,12,1024,1024,64", "numpy", "no product of 16-bit matrices"),
        ("float16 causal 1,12,1024,1024,64", "jax", "none in float16 on a CPU"),
    ],
)  # fmt: skip
def test_a_row_that_a_peer_cannot_do_says_why_it_is_skipped(row, who, reason):
    from asv_benchmarks.bench_attention import WORK
    from asv_benchmarks.peers import refuse

    with pytest.raises(NotImplementedError, match=reason):
        refuse(WORK[row], who)
    refuse(WORK[row], "torch")


def test_an_installed_combination_is_a_parameter_and_where_it_is_missing_its_row_is_skipped(
    monkeypatch,
):
    from asv_benchmarks import bench_combination

    monkeypatch.setenv("ASV_MHAKIT_COMBINATIONS", "average,somebodys")
    assert bench_combination.names() == ["average", "somebodys"]
    with pytest.raises(NotImplementedError, match="somebodys"):
        bench_combination.Gradient().setup("somebodys")
    monkeypatch.delenv("ASV_MHAKIT_COMBINATIONS")
    assert {"average", "concat_project"} <= set(bench_combination.names())


def test_ratios_and_their_spread_come_first_where_asv_sorts_by_name():
    from asv_benchmarks import bench_against_peers

    assert sorted(MODULES)[0] == "bench_against_peers"
    for cls in classes("bench_against_peers"):
        series = {name for name in dir(cls) if name.startswith("track_")}
        if cls not in (bench_against_peers.Headline, bench_against_peers.TableMemory):
            (ratio,) = (name for name in series if not name.endswith("_spread"))
            assert series == {ratio, f"{ratio}_spread"}
        assert cls.version == "1", "what the history keeps is shown only under the same version"


def test_the_table_needs_nothing_that_a_fresh_environment_lacks():
    import subprocess

    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); "
        "sys.modules |= dict.fromkeys(('rich', 'click', 'asv', 'torch', 'onnxruntime')); "
        "import asv_benchmarks.table as table, mhakit.bench.rows as rows, mhakit; "
        "from mhakit.bench import contest; contest.installed = lambda peer: peer == 'numpy'; "
        "rows.ROWS = rows.chosen(['tiny 1,8,4,4,16', 'combine average']); "
        "table.write()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert [(row["family"], row["against"]) for row in told["rows"]][-1] == ("combine", "numpy")
    assert told["rows"][-1]["measured"] > 0


def test_what_the_suite_measures_by_is_the_checkouts_own():
    import subprocess

    code = "import asv_benchmarks, mhakit.bench.rows as rows; print(rows.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r}); {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(ROOT / "mhakit" / "bench" / "rows.py")


def test_asvs_file_names_what_is_tested():
    text = re.sub(r"^\s*//.*$", "", (ROOT / "asv.conf.json").read_text(), flags=re.MULTILINE)
    told = json.loads(text)
    project = (ROOT / "pyproject.toml").read_text()
    assert told["pythons"] == re.findall(r"Python :: (3\.\d+)", project)
    assert all(told[name].startswith(".asv/") for name in ("env_dir", "results_dir", "html_dir"))


@pytest.mark.parametrize("module", MODULES)
def test_importing_a_benchmark_runs_no_kernel(module):
    import subprocess

    code = (
        f"import sys; import asv_benchmarks.{module}; "
        "print([m for m in ('torch', 'onnxruntime', 'mhakit.backends.cpu') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_a_form_is_held_against_mhakit_before_it_is_timed_and_none_skips_the_row():
    class Ours(benchmarks.OverNumpy):
        forms = {  # noqa: RUF012
            "average": lambda z, x, p: z.mean(axis=2) @ p["weight"] + p["bias"],
            "sum": lambda z, x, p: z.mean(axis=2) @ p["weight"] + p["bias"],
        }

    bench = Ours()
    bench.setup("average")
    assert bench.track_over_numpy("average") > 0
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        bench.setup("sum")
    for cls, arguments in ((Ours, ("max",)), (benchmarks.Combine, ("max", "numpy"))):
        with pytest.raises(NotImplementedError, match="no form of NumPy's is written down"):
            cls().setup(*arguments)
