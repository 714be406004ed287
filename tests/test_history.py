"""The history of ratios that the repository keeps, and what keeps it."""

import json

import pytest

pytestmark = pytest.mark.usefixtures("from_the_checkout")


def test_a_range_without_commits_is_named(monkeypatch, capsys):
    from asv_benchmarks import keep

    monkeypatch.setattr(keep, "installed", lambda peer: True)
    assert keep.main(["HEAD..HEAD"]) == 2
    assert "RANGE must hold commits of this repository, got 'HEAD..HEAD'" in capsys.readouterr().err


def test_only_the_ratios_of_a_result_are_kept_and_nothing_that_names_a_host(tmp_path):
    from asv_benchmarks.keep import keep

    (tmp_path / "a").mkdir()
    name = "bench_against_peers.X.track_x"
    told = {
        "params": {"machine": "m", "os": "Linux 6.1-host", "python": "3.11"},
        "result_columns": ["result", "params", "version", "started_at", "duration"],
        "results": {
            name: [[1.23456, float("nan")], [["'a'", "'b'"]], "1", 5, 6],
            "bench_against_peers.X.track_y": [[float("nan")], [["'a'"]], "1", 5],
            "bench_against_peers.X.track_z": [None, [["'a'"]], "1"],
            "bench_import.Y.time_y": [[1.0], [["'a'"]], "1"],
        },
        "durations": {"<build>": 1.0},
        "version": 2,
    }
    (tmp_path / "a" / "r.json").write_text(json.dumps(told))
    (tmp_path / "a" / "machine.json").write_text(
        json.dumps({"machine": "m", "os": "Linux 6.1-host"})
    )
    keep(tmp_path / "a" / "r.json", tmp_path / "b")
    text = (tmp_path / "b" / "r.json").read_text()
    kept = json.loads(text)
    assert list(kept["results"]) == [name]
    assert kept["results"][name][0][0] == 1.235
    assert "host" not in text + (tmp_path / "b" / "machine.json").read_text()


def test_the_history_lies_by_machine_and_is_of_commits_of_this_repository():
    from asv_benchmarks.keep import HISTORY, SERIES

    results = [path for path in HISTORY.glob("*/*.json") if path.name != "machine.json"]
    assert len(results) >= 3
    for path in results:
        told = json.loads(path.read_text())
        machine = json.loads((path.parent / "machine.json").read_text())
        assert told["params"]["machine"] == machine["machine"] == path.parent.name
        assert path.name.startswith(told["commit_hash"][:8])
        assert all(name.startswith(SERIES) for name in told["results"])
        assert path.stat().st_size < 20_000
