"""The benchmarks' shape; that they run is for asv, which runs each of them once in CI."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest

from mhakit.testing import benchmarks

ROOT = Path(__file__).parent.parent
MODULES = sorted(path.stem for path in (ROOT / "asv_benchmarks").glob("bench_*.py"))


@pytest.fixture(autouse=True)
def from_the_checkout(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def loaded_of(cls):
    return sys.modules[cls.__module__]


def classes(module):
    loaded = importlib.import_module(f"asv_benchmarks.{module}")
    own = [
        c for _, c in inspect.getmembers(loaded, inspect.isclass) if c.__module__ == loaded.__name__
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
