"""The benchmarks' shape; that they run is for asv, which runs each of them once in CI."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest

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
