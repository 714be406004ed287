"""A layer in a file and back: names and shapes checked, nothing half written."""

from __future__ import annotations

import builtins
import json
import os

import ml_dtypes
import numpy as np
import pytest

import mhakit
from mhakit.errors import CheckpointError, MissingExtra, ParameterError, PluginError
from mhakit_builtins.average import Average
from mhakit_builtins.drop_head import DropHead

FORMS = ("npz", "safetensors")
M, H = 8, 4


@pytest.fixture(params=FORMS)
def path(request, tmp_path):
    return tmp_path / f"layer.{request.param}"


def assert_same(layer, other):
    assert type(other) is type(layer)
    assert repr(other) == repr(layer)
    first, second = layer.parameters(), other.parameters()
    assert list(first) == list(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
        assert first[name].dtype == second[name].dtype


@pytest.mark.parametrize("name", [record.name for record in mhakit.combinations()])
def test_a_layer_of_any_combination_comes_back_as_it_was(path, name):
    layer = mhakit.MultiHeadAttention(M, H, combine=name, rng=3)
    layer.save(path)
    again = mhakit.MultiHeadAttention.load(path)
    assert_same(layer, again)
    x = np.random.default_rng(0).standard_normal((3, M)).astype(np.float32)
    np.testing.assert_array_equal(again(x), layer(x))


def test_sizes_dtype_and_missing_biases_come_back(path, dtype):
    layer = mhakit.MultiHeadAttention(
        M, H, num_kv_heads=2, head_width=3, value_width=5, bias=False, dtype=dtype, rng=1
    )
    layer.save(str(path))
    assert_same(layer, mhakit.MultiHeadAttention.load(str(path)))


def test_a_combination_with_options_must_be_given_again(path):
    layer = mhakit.MultiHeadAttention(M, H, combine=DropHead(0.5), rng=1)
    layer.save(path)
    with pytest.raises(
        ParameterError, match=r"combine must be given .* whose 'drop_head' had options"
    ):
        mhakit.MultiHeadAttention.load(path)
    assert_same(layer, mhakit.MultiHeadAttention.load(path, combine=DropHead(0.5)))


@pytest.mark.parametrize(
    ("combine", "error", "told"),
    [
        ("average", CheckpointError, r"must have combine.weight of shape \(2, 8\) for combine='average', got \(8, 8\)"),
        ("head_scale", CheckpointError, r"must have combine.gain of shape \(4,\) for combine='head_scale', got None"),
        (Average(bias=False), CheckpointError, r"must have combine.weight of shape"),
        ("averag", PluginError, r"did you mean 'average'"),
    ],
)  # fmt: skip
def test_names_and_shapes_are_those_of_the_combination(path, combine, error, told):
    mhakit.MultiHeadAttention(M, H, rng=0).save(path)
    with pytest.raises(error, match=told):
        mhakit.MultiHeadAttention.load(path, combine=combine)


def test_an_array_that_no_parameter_has_is_named(path):
    mhakit.MultiHeadAttention(M, H, combine="head_scale", rng=0).save(path)
    with pytest.raises(
        CheckpointError, match=r"must have query_weight, .* alone, got combine.gain"
    ):
        mhakit.MultiHeadAttention.load(path, combine="concat_project")


def test_a_file_that_was_cut_short_or_is_another_is_named(path):
    mhakit.MultiHeadAttention(M, H, rng=0).save(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"words"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="must be a whole file that a layer's save wrote"):
            mhakit.MultiHeadAttention.load(path)
    path.unlink()
    with pytest.raises(
        CheckpointError, match=r"must be a file that can be read, got: .*No such file"
    ):
        mhakit.MultiHeadAttention.load(path)


def npz(path, record, **arrays):
    np.savez(path, mhakit=np.array(json.dumps(record)), **arrays)


def test_what_a_file_must_hold_is_said_by_name(tmp_path):
    path, record = (
        tmp_path / "a.npz",
        {"combine": "average", "options": "default", "dtype": "float32"},
    )
    np.savez(path, query_weight=np.ones(3))
    with pytest.raises(CheckpointError, match="save wrote, got: KeyError: 'mhakit'"):
        mhakit.MultiHeadAttention.load(path)
    npz(path, record, query_weight=np.ones((2, 4, 2), np.float32))
    with pytest.raises(
        CheckpointError, match=r"must have key_weight \(G, M, D\), got query_weight"
    ):
        mhakit.MultiHeadAttention.load(path)
    weights = {f"{name}_weight": np.ones(3, np.float32) for name in ("query", "key", "value")}
    npz(path, record, **weights)
    with pytest.raises(
        CheckpointError, match=r"query_weight in .* must be \(H, M, D\), got shape \(3,\)"
    ):
        mhakit.MultiHeadAttention.load(path)
    npz(path, record, query_weight=np.ones(3))
    with pytest.raises(CheckpointError, match="must be float32 as the file says, got float64"):
        mhakit.MultiHeadAttention.load(path)


@pytest.mark.parametrize("name", ["layer.txt", "layer"])
def test_a_path_of_another_ending_is_refused(tmp_path, name):
    with pytest.raises(ParameterError, match=r"path must end in .npz or .safetensors, got '"):
        mhakit.MultiHeadAttention(M, H, rng=0).save(tmp_path / name)
    with pytest.raises(ParameterError, match=r"path must end in .npz or .safetensors, got '"):
        mhakit.MultiHeadAttention.load(tmp_path / name)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(path, monkeypatch):
    layer = mhakit.MultiHeadAttention(M, H, rng=0)
    layer.save(path)
    before = path.read_bytes()

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        mhakit.MultiHeadAttention(M, H, rng=1).save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("missing", "told"), [("safetensors", r"mhakit\[models\]"), ("ml_dtypes", r"mhakit\[bf16\]")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch, missing, told):
    path = tmp_path / "layer.safetensors"
    layer = mhakit.MultiHeadAttention(M, H, dtype=ml_dtypes.bfloat16, rng=0)
    layer.save(path)
    true = builtins.__import__

    def without(name, *args):
        if name == missing:
            raise ImportError(name=name)
        return true(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=told):
        mhakit.MultiHeadAttention.load(path)


def test_arrays_of_objects_are_never_unpickled(tmp_path):
    path = tmp_path / "layer.npz"
    np.savez(path, mhakit=np.array([{}], dtype=object))
    with pytest.raises(CheckpointError, match="save wrote, got: ValueError: Object arrays cannot"):
        mhakit.MultiHeadAttention.load(path)
