"""Which kernel of attention the backend ``cuda`` chooses, on devices that are only told of."""

import os

import ml_dtypes
import numpy as np
import pytest

import mhakit
from mhakit import backends
from mhakit.api.arguments import as_problem
from mhakit.errors import ParameterError
from mhakit.testing import Sizes, draw

pytestmark = pytest.mark.skipif(
    os.environ.get("NUMBA_ENABLE_CUDASIM") == "1", reason="the simulator has no device to tell of"
)
SIZES = Sizes(2, 4, 2, 37, 150, 64, 64)
HALF = np.dtype(ml_dtypes.bfloat16)
BORROWED = np.zeros((2, 2, 150, 1), HALF)


@pytest.fixture
def chosen(monkeypatch):
    """What `explain` says on a device of a capability."""
    from mhakit.backends import cuda
    from mhakit.backends.cuda import presence

    def ask(*arrays, capability=(9, 0), **keywords):
        monkeypatch.setattr(backends, "select", lambda *given: cuda)
        monkeypatch.setattr(presence, "capability_of", lambda array: capability)
        return mhakit.explain(*arrays, **keywords)

    return ask


def test_what_the_tiles_take_is_explained_as_theirs(chosen):
    plan = chosen(*draw(SIZES._replace(T=130), HALF), causal="bottom_right")
    assert plan.kernel == "cuda.attention, tiles by mma.sync, bfloat16-D64-128x64-4w"
    assert plan.why == (
        "T * H / G is 260, decoding takes 16 at most; "
        "tile kernels take this dtype, these widths and these keywords"
    )
    assert (plan.tile, plan.threads) == ((128, 64), 128)
    # of each head: targets 0 to 127 see up to source 147, 128 and 129 see all
    assert (plan.tiles_full, plan.tiles_border, plan.tiles_skipped) == (8 * 2, 8 * 4, 0)
    masked = chosen(*draw(SIZES, HALF), mask=np.ones(150, bool))
    assert (masked.tile, masked.tiles_full) == ((64, 64), 0)


@pytest.mark.parametrize(
    ("kernel", "sizes", "why", "order", "names"),
    [
        (
            "attention", SIZES._replace(T=130), "take this dtype{}, these widths and these keywords",
            "tiles of 32 sources, in order",
            ["float32-3xtf32-D64-64x32-4w", "float32-fma-D64-64x32-4w", "float32-fma-D64-128x32-4w"],
        ),
        (
            "decoding", SIZES._replace(T=5), "one tile{}: each key and value is read once",
            "1 segment of 256 sources, in order",
            [f"decoding-float32-{way}-D64-16x32-2w" for way in ("3xtf32", "fma", "fma")],
        ),
        (
            "decoding", SIZES._replace(T=5, E=256), "one tile{}: each key and value is read once",
            "1 segment of 256 sources, in order",
            [f"decoding-float32-{way}-D64E256-16x32-4w" for way in ("3xtf32", "fma", "fma")],
        ),
    ],
)  # fmt: skip
def test_how_float32_is_multiplied_is_explained(
    kernel, sizes, why, order, names, chosen, monkeypatch
):
    def ask(capability=(9, 0)):
        return chosen(*draw(sizes, np.float32), capability=capability)

    monkeypatch.delenv("MHAKIT_CUDA_FLOAT32", raising=False)
    plans = [ask(), ask((7, 5))]
    monkeypatch.setenv("MHAKIT_CUDA_FLOAT32", "fma")
    plans.append(ask())
    ways = (
        ("mma.sync", ", which tensor cores multiply as three products of TF32"),
        ("fma", ", without tensor cores: compute capability 7.5 has no TF32"),
        ("fma", ", without tensor cores, as MHAKIT_CUDA_FLOAT32 asks"),
    )
    for plan, name, (by, how) in zip(plans, names, ways, strict=True):
        assert plan.kernel == f"cuda.{kernel}, tiles by {by}, {name}"
        assert plan.why.endswith(why.format(how))
        assert (plan.tile[1], plan.order) == (32, order)
    monkeypatch.setenv("MHAKIT_CUDA_FLOAT32", "exact")
    with pytest.raises(ParameterError, match="MHAKIT_CUDA_FLOAT32 must be fma or not set"):
        ask()


@pytest.mark.parametrize(
    ("dtype", "name", "how", "apart", "threads"),
    [
        (HALF, "bfloat16-D64-16x64-4w", "", 64, 128),
        (
            np.float32, "float32-3xtf32-D64-16x32-2w",
            ", which tensor cores multiply as three products of TF32", 32, 64,
        ),
    ],
)  # fmt: skip
def test_few_targets_are_decoded_and_explained_so(
    dtype, name, how, apart, threads, chosen, monkeypatch
):
    monkeypatch.delenv("MHAKIT_CUDA_FLOAT32", raising=False)
    few = SIZES._replace(T=5, S=600)
    plan = chosen(*draw(few, dtype), causal="bottom_right")
    assert plan.kernel == f"cuda.decoding, tiles by mma.sync, decoding-{name}"
    assert plan.why == (
        f"T * H / G is 10, all rows that share a key head fit one tile{how}: each key and value is "
        "read once"
    )
    assert plan.order == "3 segments of 256 sources, each in order, then merged"
    assert (plan.tile, plan.threads) == ((16, apart), threads)
    # of each key head; the last tile hides something
    tiles = plan.tiles_full, plan.tiles_border, plan.tiles_skipped
    assert tiles == (4 * (600 // apart), 4, 0)
    assert plan.scratch_bytes == 4 * 2 * 4 * 5 * 3 * (64 + 4) + 2 * 16
    one = chosen(*draw(few._replace(S=200), dtype))
    assert (one.order, one.scratch_bytes) == ("1 segment of 256 sources, in order", 2 * 16)


def test_arrays_of_the_host_are_judged_as_they_will_lie_on_the_device(chosen):
    query, _, value = draw(SIZES, HALF)
    odd = np.zeros((2, 2, 150, 67), HALF)[..., 1:65]
    backwards = query[..., ::-1]
    broad = np.broadcast_to(value[:1, :1], value.shape)
    plan = chosen(backwards, odd, broad, bias=np.zeros(150), sinks=np.zeros(8)[::2])
    assert "tiles by mma.sync" in plan.kernel


REFUSED = {
    "an old device": (draw(SIZES, HALF), {"capability": (7, 5)}, "compute capability 7.5"),
    "a simulator": (draw(SIZES, HALF), {"capability": None}, "Numba's simulator has no tensor"),
    "float64": (draw(SIZES, np.float64), {}, "the dtype is float64"),
    "float32 on a device older still": (
        draw(SIZES, np.float32), {"capability": (6, 1)}, "tile kernels of float32 need 7.0",
    ),
    "a width of float32": (
        draw(SIZES._replace(E=256), np.float32), {}, "E is 256, tile kernels of float32 take 32",
    ),
    "a width": (draw(SIZES._replace(D=48), HALF), {}, "D is 48, tile kernels of bfloat16 take 32, 64, 80"),
    "a broadcast width": (
        (*draw(SIZES, HALF)[:2], np.broadcast_to(BORROWED, (2, 2, 150, 64))), {},
        "neighbours along the last axis of value are 0 bytes apart",
    ),
    "too little shared memory": (
        draw(SIZES._replace(D=256, E=256), HALF), {"capability": (8, 9)}, "bytes of shared memory",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_plain_blocks_take_what_the_tiles_refuse_and_say_why(name, chosen):
    arrays, keywords, reason = REFUSED[name]
    plan = chosen(*arrays, **keywords)
    assert plan.kernel == "cuda.attention, plain blocks"
    assert reason in plan.why
    assert plan.why.endswith("; plain blocks take every width, dtype and keyword")


def test_the_one_who_is_chosen_runs(monkeypatch):
    from mhakit.backends.cuda import attention, choosing, decoding, presence, tiled_attention

    modules = ((attention, "plain"), (tiled_attention, "tiles"), (decoding, "decoding"))
    for module, name in modules:
        monkeypatch.setattr(module, "attend", lambda *given, wants_lse, name=name: name)
    for T, capability, name in (
        (37, (8, 0), "tiles"), (9, (8, 0), "tiles"), (8, (8, 0), "decoding"), (37, (7, 0), "plain"),
        (8, (7, 0), "plain"), (8, None, "plain"),
    ):  # fmt: skip
        problem, _ = as_problem(*draw(SIZES._replace(T=T), HALF))
        out = np.empty((2, 4, T, 64), HALF)
        monkeypatch.setattr(presence, "capability_of", lambda array, told=capability: told)
        assert choosing.attend(problem, out) == name


def test_an_output_whose_rows_the_tiles_cannot_write_goes_to_plain_blocks(monkeypatch):
    from mhakit.backends.cuda import attention, choosing, presence
    from mhakit.device import DeviceArray

    monkeypatch.setattr(presence, "capability_of", lambda array: (9, 0))
    problem, _ = as_problem(*draw(SIZES, HALF))
    out = DeviceArray(4096 + 2, (2, 4, 37, 64), (4 * 37 * 128, 37 * 128, 128, 2), HALF, None)
    choice = choosing.choose(problem, out)
    assert choice.attend is attention.attend
    assert choice.why.startswith("rows of out do not begin at multiples of 16 bytes;")


def test_the_capability_is_asked_of_the_device_that_the_array_lies_on(monkeypatch):
    from numba import cuda

    from mhakit.backends.cuda import presence
    from mhakit.device import DeviceArray

    class Device:
        def __init__(self, *capability):
            self.compute_capability = capability

    monkeypatch.setattr(cuda, "gpus", [Device(7, 5), Device(9, 0)])
    monkeypatch.setattr(cuda, "get_current_device", lambda: Device(8, 6))
    for ordinal, capability in enumerate(((7, 5), (9, 0))):
        held = DeviceArray(4096, (1,), (2,), HALF, None, device=ordinal)
        assert presence.capability_of(held) == capability
    assert presence.capability_of(np.ones(1)) == (8, 6)
