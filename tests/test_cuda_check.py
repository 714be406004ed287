"""The check of the tile kernels: what the compiler makes of them, and its command."""

import json

import pytest

from mhakit.backends.cuda.check import __main__ as command
from mhakit.backends.cuda.check import compilation
from mhakit.backends.cuda.check.compilation import compile_variant, faults_of, require_compiler
from mhakit.backends.cuda.check.device import require_device
from mhakit.backends.cuda.check.variants import VARIANTS
from mhakit.backends.cuda.tiles.attention import attend
from mhakit.backends.cuda.tiles.variant import Variant
from mhakit.errors import BackendUnavailable, CompileError, MissingExtra


def reason_to_skip():
    try:
        require_compiler()
    except MissingExtra as error:
        return str(error)
    return ""


WHY_NOT = reason_to_skip()
compiles = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "it compiles")

EVERYTHING = "bfloat16-D128-64x64-4w-softcap-bias-mask-score_mod"
SUBSET = [
    ("bfloat16-D64-128x64-4w", (8, 0)),
    ("bfloat16-D128-128x64-4w", (9, 0)),
    ("float16-D128-64x64-4w", (8, 0)),
    ("float16-D128-64x64-4w-softcap", (9, 0)),
    ("bfloat16-D256-64x64-4w", (9, 0)),
    (EVERYTHING, (9, 0)),
]


def variant_named(name):
    (variant,) = [variant for variant in VARIANTS if variant.name == name]
    return variant


@compiles
@pytest.mark.parametrize(("name", "capability"), SUBSET)
def test_a_variant_compiles_within_its_budget(name, capability):
    report = compile_variant(variant_named(name), capability)
    assert faults_of(report) == []
    v = report.variant
    tiles = v.groups * (64 // 8) * (v.D // 16) + v.groups * (v.E // 8) * (64 // 16)
    assert report.counts["mma"] >= tiles, "the products of scores and of values"
    assert report.registers * v.threads * v.blocks <= 65536


@compiles
@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("decoding-bfloat16-D128-16x64-4w", (9, 0)),
        ("decoding-float16-D128-16x64-4w-softcap-bias-mask-score_mod", (8, 0)),
        ("decoding-bfloat16-D64-16x64-4w", (8, 0)),
        ("decoding-float32-3xtf32-D64-16x32-2w", (8, 0)),
        ("decoding-float32-3xtf32-D128-16x32-2w-softcap-bias-mask-score_mod", (9, 0)),
        ("decoding-float32-fma-D128-16x32-2w", (9, 0)),
        ("decoding-float32-fma-D64-16x32-2w-mask", (7, 5)),
        ("decoding-float32-3xtf32-D64E256-16x32-4w", (8, 0)),
        ("decoding-float32-fma-D256-16x32-4w-softcap-bias-mask-score_mod", (7, 5)),
        ("merging-bfloat16-E128", (9, 0)),
        ("merging-float32-E64", (8, 0)),
    ],
)
def test_a_decoding_variant_compiles_within_its_budget(name, capability):
    report = compile_variant(variant_named(name), capability)
    assert faults_of(report) == []
    v, counts = report.variant, report.counts
    assert report.registers * v.threads * v.blocks <= 65536
    if name.startswith("merging"):
        return
    steps = 1 if v.changes and v.product == "3xtf32" else v.D * v.size // 32
    once = 2 * steps + v.held // 8 * (v.size // 2)
    products = {"mma": once, "3xtf32": 3 * once, "fma": 0}[v.product]
    specials = 0 if v.product == "fma" else v.held // 8 * (v.size // 2)
    assert counts["mma"] >= products + specials
    if not v.changes:
        assert counts["mma"] == products + specials, "else the compiler unrolls some more"
    if v.product == "fma":
        rows, columns = 2 * v.groups, -(-v.held // 32) * 4
        least = rows * (2 * 2 * 4 + 2 * 4 * columns)
        assert counts["fma"] >= least, "two chunks of scores, four sources in two ways"
    chunks = v.sources * (v.D + v.E) * v.size // 16 // v.threads
    ahead = (v.stages - 1) * chunks + v.sources * v.D * v.size // 16 // v.threads
    copies = chunks + ahead - (-16 * v.D * v.size // 16 // v.threads)
    asynchronous = capability >= (8, 0)
    assert counts["cp.async"] == (copies if asynchronous else 0), "the loop's, and those before it"
    if not asynchronous:
        assert counts["128-bit load"] > copies, "each of which is done at once"


@compiles
@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("float32-3xtf32-D64-64x32-4w", (8, 0)),
        ("float32-3xtf32-D128-64x32-4w", (9, 0)),
        ("float32-3xtf32-D64E128-64x32-4w-softcap-bias-mask-score_mod", (9, 0)),
        ("float32-fma-D128-64x32-4w", (7, 5)),
    ],
)
def test_a_variant_of_float32_compiles_within_its_budget(name, capability):
    report = compile_variant(variant_named(name), capability)
    assert faults_of(report) == []
    v, counts = report.variant, report.counts
    assert report.registers * v.threads * v.blocks <= 65536
    if v.product == "fma":
        rows, columns = 2 * v.groups, -(-v.E // 32) * 4
        once = rows * (2 * 4 * 4 + 2 * 4 * columns)
        assert counts["fma"] >= once, "two chunks of scores, four sources in two ways"
        return
    steps = 1 if v.changes else v.D // 8
    products = 3 * (4 * steps + 4 * v.E // 8) + 2
    assert counts["tf32 mma"] == counts["mma"] == products, "three each, and those of specials"


@compiles
@pytest.mark.parametrize("name", ["bfloat16-D128-64x64-4w", "float32-3xtf32-D128-64x32-4w"])
def test_a_spilled_tile_is_found(name):
    wide = variant_named(name)._replace(rows=256)
    report = compile_variant(wide, (9, 0))
    assert report.spill_stores > 0
    assert report.stack > 0
    faults = faults_of(report)
    assert any("bytes of spill stores" in fault for fault in faults)
    assert any("bytes of stack" in fault for fault in faults)


@compiles
def test_a_kernel_that_computes_in_float64_or_without_tensor_cores_is_found():
    def wide(m, variant):
        attend(m, variant)
        factor = m.builder.fpext(m.field("factor").ir, _double())
        cube = m.builder.fmul(m.builder.fmul(factor, factor), factor)
        narrow = m.builder.fptrunc(cube, m.field("factor").ir.type)
        m.store_float32(m.field("lse"), m._value("float32", narrow), m.thread < 1)

    def empty(m, variant):
        m.store_float32(m.field("lse"), m.float32(0.0), m.thread < 1)

    variant = variant_named("bfloat16-D64-64x64-4w")
    faults = faults_of(compile_variant(variant, (9, 0), kernel=wide))
    assert len(faults) == 1
    assert "instructions of float64" in faults[0]
    faults = faults_of(compile_variant(variant, (9, 0), kernel=empty))
    assert faults == ["no mma", "no ldmatrix", "no cp.async", "no 128-bit store", "no ex2"]


@compiles
def test_a_kernel_for_older_chips_that_uses_tensor_cores_is_found():
    by_tensor_cores = variant_named("float32-3xtf32-D64-64x32-4w")
    faults = faults_of(
        compile_variant(
            variant_named("float32-fma-D64-64x32-4w"), (8, 0),
            kernel=lambda m, variant: attend(m, by_tensor_cores),
        )
    )  # fmt: skip
    assert [fault.partition(" ")[2] for fault in faults] == [
        "instructions of mma", "instructions of ldmatrix", "instructions of cp.async"
    ]  # fmt: skip


@compiles
def test_asynchronous_copies_that_are_not_made_where_they_could_be_are_found(monkeypatch):
    from mhakit.backends.cuda.tiles import program

    right = program.Ptx
    monkeypatch.setattr(program, "Ptx", lambda *given, **how: right(*given, asynchronous=False))
    variant = variant_named("decoding-float32-fma-D32-16x32-2w")
    assert faults_of(compile_variant(variant, (8, 0))) == ["no cp.async"]


def _double():
    from llvmlite import ir

    return ir.DoubleType()


def test_every_variant_has_a_name_and_fits_a_block():
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names)
    for variant in VARIANTS:
        assert variant.shared_bytes <= 163 * 1024, "what a block of compute capability 8.0 may have"
        assert variant.threads <= 1024
    for name, _ in SUBSET:
        variant_named(name)


def test_a_report_over_its_budget_is_a_fault():
    variant = Variant("float16", 64, 64, 64, 4)
    fine = {"mma": 1, "ldmatrix": 1, "cp.async": 1, "128-bit store": 1, "ex2": 1}
    fine |= {"float64": 0, "local": 0}
    report = compilation.Report(variant, "sm_90", 100, 0, 0, 0, fine)
    assert faults_of(report) == []
    assert faults_of(report._replace(registers=256)) == ["256 registers, its budget is 255"]
    assert faults_of(report._replace(counts=fine | {"local": 2})) == ["2 instructions of local"]
    assert faults_of(report._replace(spill_loads=8)) == ["8 bytes of spill loads"]
    with pytest.raises(ValueError, match="the linker's log must match"):
        compilation._number(r"Used (\d+) registers", "nothing")


def test_without_the_compiler_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cuda.core", None)
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mhakit\[cuda-check\]'"):
        require_compiler()


def has_gpu():
    try:
        require_device()
    except BackendUnavailable:
        return False
    return True


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_without_a_gpu_the_check_says_so_and_the_way_out(capsys):
    assert command.main([]) == 2
    message = capsys.readouterr().err
    assert message.startswith("BackendUnavailable: the check must have a GPU")
    assert "run with --compile or --twins, which need none" in message


def test_the_command_runs_twins_and_writes_json(tmp_path, capsys):
    place = tmp_path / "rows.json"
    assert (
        command.main(["--twins", "--only", "float16-D32-64x64-4w-mask", "--json", str(place)]) == 0
    )
    rows = json.loads(place.read_text())
    assert [row["variant"] for row in rows] == [
        "bfloat16-D32-64x64-4w-mask", "float16-D32-64x64-4w-mask"
    ]  # fmt: skip
    assert all(row["faults"] == [] for row in rows)
    assert "2 rows, 0 with faults" in capsys.readouterr().out


def test_the_command_tells_a_fault(monkeypatch, capsys):
    from mhakit.backends.cuda.check import twins
    from mhakit.backends.cuda.tiles.memory import Fault

    def faulty(problem, variant):
        raise Fault("a read of nothing")

    monkeypatch.setattr(twins, "run_twin", faulty)
    assert command.main(["--twins", "--only", "bfloat16-D32-64x64-4w-mask"]) == 1
    assert "a read of nothing" in capsys.readouterr().out


@compiles
def test_the_command_compiles_for_each_architecture(capsys):
    assert command.main(["--compile", "--only", "bfloat16-D32-64x64-4w-mask"]) == 0
    out = capsys.readouterr().out
    assert "sm_80" in out
    assert "sm_90" in out


@compiles
def test_a_score_mod_that_does_not_compile_is_named(monkeypatch):
    from mhakit.backends.cuda.launch import naming

    def reads_a_file(score, b, h, t, s, slope):
        return open(score)

    monkeypatch.setattr(compilation, "_shifted", reads_a_file)
    variant = Variant("float16", 64, 64, 64, 4, score_mod=True)
    message = r"score_mod .*reads_a_file must be a scalar function .* that compiles, got .*; it may"
    with pytest.raises(CompileError, match=message), naming("attention", reads_a_file):
        compile_variant(variant, (9, 0))
