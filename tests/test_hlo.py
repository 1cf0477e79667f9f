"""What is read from a compiled program: matrix products, loops, collectives and traffic, against counts by hand."""

import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jxstilts import hlo
from jxstilts.mesh import make_mesh
from jxstilts.runtime import InputError

LIBTPU = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="no libtpu: pip install jxstilts[tpu]")
STEPS, ROWS, WIDTH = 5, 16, 32


def layers(x, weights):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]


def compiled(function, *shapes, **options):
    return jax.jit(function, **options).lower(*[jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]).compile()


def counted(program) -> hlo.Cost:
    return hlo.cost(hlo.read(program.as_text()))


def test_a_loop_counts_as_often_as_it_runs():
    program = compiled(layers, (ROWS, WIDTH), (STEPS, WIDTH, WIDTH))
    cost = counted(program)
    one = 2 * ROWS * WIDTH * WIDTH
    assert cost.flops == STEPS * one
    assert not cost.unknown_loops and not cost.collectives
    assert program.cost_analysis()["flops"] < 2 * one + 20 * ROWS * WIDTH  # XLA's own count has the body once


def test_gradients_cost_twice_the_forward_pass():
    program = compiled(jax.grad(lambda w, x: layers(x, w).sum()), (STEPS, WIDTH, WIDTH), (ROWS, WIDTH))
    forward = STEPS * 2 * ROWS * WIDTH * WIDTH
    # the first layer's input has no gradient, but inside a loop all steps are alike
    assert counted(program).flops == 3 * forward


def test_products_with_batch_dimensions():
    program = compiled(lambda a, b: jnp.einsum("bnth,bnsh->bnts", a, b), (2, 3, 5, 7), (2, 3, 11, 7))
    assert counted(program).flops == 2 * (2 * 3 * 5 * 11) * 7


@pytest.mark.parametrize("devices", [2, 8])
def test_the_gradients_of_data_parallelism_cross_once(devices):
    mesh = make_mesh({"data": devices}, jax.devices()[:devices])
    rows, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    step = jax.grad(lambda w, x: jnp.square(x @ w).sum())
    cost = counted(compiled(step, (WIDTH, WIDTH), (ROWS, WIDTH), in_shardings=(whole, rows), out_shardings=whole))
    size = 4 * WIDTH * WIDTH
    assert cost.by_kind() == {
        "all-reduce": {"count": 1, "bytes": size, "sent": 2 * size * (devices - 1) / devices},
    }
    assert cost.flops == 2 * (2 * ROWS * WIDTH * WIDTH) / devices


def test_gathered_parameters():
    mesh = make_mesh({"fsdp": 8}, jax.devices())
    split, whole = NamedSharding(mesh, PartitionSpec("fsdp")), NamedSharding(mesh, PartitionSpec())
    cost = counted(compiled(lambda w: w * 2, (64, 8), in_shardings=split, out_shardings=whole))
    assert cost.by_kind() == {"all-gather": {"count": 1, "bytes": 64 * 8 * 4, "sent": 64 * 8 * 4 * 7 / 8}}


MODULE = """HloModule jit_f, is_scheduled=true, num_partitions=8

%scaled (p.0: f32[24,64,64], p.1: s32[]) -> f32[64,64] {
  %p.0 = f32[24,64,64]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,64,64]{2,1,0} dynamic-slice(%p.0, %p.1, %zero, %zero), dynamic_slice_sizes={1,64,64}
  ROOT %flat = f32[64,64]{1,0} bitcast(%slice)
}

%kept (p.2: f32[24,64,64], p.3: f32[64,64], p.4: s32[]) -> f32[24,64,64] {
  %p.2 = f32[24,64,64]{2,1,0} parameter(0)
  %p.3 = f32[64,64]{1,0} parameter(1)
  %p.4 = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  %row = f32[1,64,64]{2,1,0} bitcast(%p.3)
  ROOT %update = f32[24,64,64]{2,1,0} dynamic-update-slice(%p.2, %row, %p.4, %zero.1, %zero.1)
}

%body (state: (s32[], f32[24,64,64], f32[24,64,64])) -> (s32[], f32[24,64,64], f32[24,64,64]) {
  %state = (s32[], f32[24,64,64]{2,1,0}, f32[24,64,64]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %weights = f32[24,64,64]{2,1,0} get-tuple-element(%state), index=1
  %out = f32[24,64,64]{2,1,0} get-tuple-element(%state), index=2
  %one = s32[]{:T(128)S(6)} constant(1)
  %next = s32[]{:T(128)S(6)} add(%i, %one)
  %w = f32[64,64]{1,0:T(8,128)S(1)} fusion(%weights, %i), kind=kLoop, calls=%scaled
  %new = f32[24,64,64]{2,1,0} fusion(%out, %w, %i), kind=kLoop, calls=%kept
  ROOT %again = (s32[], f32[24,64,64]{2,1,0}, f32[24,64,64]{2,1,0}) tuple(%next, %weights, %new)
}

%test (state.1: (s32[], f32[24,64,64], f32[24,64,64])) -> pred[] {
  %state.1 = (s32[], f32[24,64,64]{2,1,0}, f32[24,64,64]{2,1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %end = s32[] constant(24)
  ROOT %less = pred[] compare(%i.1, %end), direction=LT
}

ENTRY %main (a: f32[24,64,64], b: f32[24,64,64]) -> f32[24,64,64] {
  %a = f32[24,64,64]{2,1,0} parameter(0)
  %b = f32[24,64,64]{2,1,0} parameter(1)
  %start = s32[] constant(START)
  %copied = s32[] copy(%start)
  %given = (s32[], f32[24,64,64]{2,1,0}, /*index=2*/f32[24,64,64]{2,1,0}) tuple(%copied, %a, %b)
  %loop = (s32[], f32[24,64,64]{2,1,0}, f32[24,64,64]{2,1,0}) while(%given), condition=%test, body=%body
  ROOT %result = f32[24,64,64]{2,1,0} get-tuple-element(%loop), index=2
}
"""


@pytest.mark.parametrize(("start", "step", "trips"), [(0, 1, 24), (20, 1, 4), (0, 2, 12), (1, 2, 12)])
def test_a_loop_reads_and_writes_only_its_slices(start, step, trips):
    """The trip count is in the condition; what lies on the chip (S(1)) is no traffic."""
    text = MODULE.replace("constant(1)", f"constant({step})").replace("START", str(start))
    cost = hlo.cost(hlo.read(text))
    times = {each.name: each.times for each in cost.operations}
    assert times["w"] == times["new"] == trips
    moved = {each.name: each.bytes for each in cost.operations}
    assert moved["w"] == 64 * 64 * 4 + 4  # the slice and its index are read, the result stays on the chip
    assert moved["new"] == 64 * 64 * 4 + 4  # the index is read, the slice written; the rest stays where it is
    assert not cost.unknown_loops


def test_a_loop_of_unknown_length_is_named():
    text = MODULE.replace("constant(START)", "parameter(2)")
    cost = hlo.cost(hlo.read(text))
    assert cost.unknown_loops == ("loop",)
    assert {each.times for each in cost.operations if each.name == "w"} == {1}


@pytest.mark.parametrize(
    ("line", "flops"),
    [  # matrix products as the TPU compiler writes them: batch dimensions are spatial ones
        (
            "f32[4,16,128,128]{2,3,1,0} convolution(%x, %y), window={size=4x16 stride=3x15 lhs_dilate=4x16}, "
            "dim_labels=01bf_01oi->01bf",
            2 * 4 * 16 * 128 * 128 * 64,
        ),
        (
            "bf16[4,16,128,128]{2,3,1,0} convolution(%x, %y), window={size=4x16 stride=4x16 pad=3_3x15_15 "
            "lhs_dilate=3x15 rhs_reversal=1x1}, dim_labels=01bf_01oi->01bf",
            2 * 4 * 16 * 128 * 128 * 64,
        ),
    ],
)
def test_products_written_as_convolutions(line, flops):
    text = f"""HloModule m

ENTRY %main (x: f32[4,16,128,64], y: f32[4,16,128,64]) -> f32[4,16,128,128] {{
  %x = f32[4,16,128,64]{{3,2,1,0}} parameter(0)
  %y = f32[4,16,128,64]{{3,2,1,0}} parameter(1)
  ROOT %c = {line}
}}
"""
    assert hlo.cost(hlo.read(text)).flops == flops


@pytest.mark.parametrize(
    ("line", "moved"),
    [  # started in main memory, done on the chip (S(1)), and the other way round
        (
            "((f32[64,128]{1,0:T(8,128)}), f32[16,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%x), "
            "slice={[16:32], [0:128]}",
            16 * 128 * 4,
        ),
        ("(f32[64,128]{1,0:T(8,128)S(1)}, f32[64,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)", 64 * 128 * 4),
        ("(f32[64,128]{1,0:T(8,128)}, f32[64,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)", 2 * 64 * 128 * 4),
    ],
)
def test_what_is_fetched_ahead_counts_by_what_arrives(line, moved):
    text = f"""HloModule m

ENTRY %main (x: f32[64,128]) -> f32[] {{
  %x = f32[64,128]{{1,0:T(8,128)}} parameter(0)
  %started = {line}
  ROOT %c = f32[] constant(0)
}}
"""
    assert hlo.cost(hlo.read(text)).bytes == moved


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ("channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true", 4),
        ("replica_groups=[2,4]<=[8], dimensions={0}", 4),
        ("replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add", 2),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_0','axis_1'}, use_global_device_ids=true", 16),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_1'}, to_apply=%add", 2),
        ("replica_groups=mesh['a_0'=2,'a_1'=4], device_ids=([2,2,2]T(1,0,2)) {'a_1'}, use_global_device_ids=true", 4),
        ("replica_groups={}, to_apply=%add", 64),
        ("source_target_pairs={{0,1},{1,0}}", 2),
    ],
)
def test_groups_of_devices(attributes, size):
    assert hlo.group_size(attributes, 64) == size


def test_an_unknown_notation_is_refused():
    with pytest.raises(InputError, match="replica_groups=<new>"):
        hlo.group_size("replica_groups=<new>, to_apply=%add", 8)
    with pytest.raises(InputError, match="no ENTRY"):
        hlo.read("not a program")


SCATTER = """HloModule m, num_partitions=4

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%all-reduce-scatter (a: f32[64,8], b: f32[64,8]) -> (f32[16,8], f32[16,8]) {
  %a = f32[64,8]{1,0} parameter(0)
  %b = f32[64,8]{1,0} parameter(1)
  %both = (f32[64,8]{1,0}, f32[64,8]{1,0}) all-reduce(%a, %b), replica_groups={{0,1,2,3}}, to_apply=%add
  %first = f32[64,8]{1,0} get-tuple-element(%both), index=0
  %second = f32[64,8]{1,0} get-tuple-element(%both), index=1
  %zero = u32[] constant(0)
  %mine = f32[16,8]{1,0} dynamic-slice(%first, %zero, %zero), dynamic_slice_sizes={16,8}
  %other = f32[16,8]{1,0} dynamic-slice(%second, %zero, %zero), dynamic_slice_sizes={16,8}
  ROOT %parts = (f32[16,8]{1,0}, f32[16,8]{1,0}) tuple(%mine, OTHER)
}

ENTRY %main (a: f32[64,8], b: f32[64,8]) -> (f32[16,8], f32[16,8]) {
  %a = f32[64,8]{1,0} parameter(0)
  %b = f32[64,8]{1,0} parameter(1)
  ROOT %out = (f32[16,8]{1,0}, f32[16,8]{1,0}) fusion(%a, %b), kind=kCustom, calls=%all-reduce-scatter
}
"""


def test_an_all_reduce_of_which_parts_are_kept():
    """How the TPU compiler writes a reduce-scatter of several arrays; not one where a whole array is kept, too."""
    size = 2 * 64 * 8 * 4
    found = hlo.cost(hlo.read(SCATTER.replace("OTHER", "%other"))).by_kind()
    assert found == {"reduce-scatter": {"count": 1, "bytes": size, "sent": size * 3 / 4}}
    assert set(hlo.cost(hlo.read(SCATTER.replace("OTHER", "%second"))).by_kind()) == {"all-reduce"}


@LIBTPU
def test_the_tpu_compilers_text():
    """The same counts from libtpu's program as by hand; and the memory that it says a chip has."""
    from jxstilts.check import chips

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    for name, chip, size in (("v5e:2x2", "v5e", 70_000), ("v5p:2x2x1", "v5p", 180_000), ("v6e:2x2", "v6e", 100_000)):
        mesh = make_mesh({"data": 4}, chips.devices(name))
        rows, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
        step = jax.grad(lambda w, x: layers(x, w).sum())
        program = compiled(
            step, (STEPS, 256, 256), (64, 256), in_shardings=(whole, rows), out_shardings=whole
        )  # fmt: skip
        cost = counted(program)
        np.testing.assert_allclose(cost.flops, 3 * STEPS * 2 * 64 * 256 * 256 / 4, rtol=0.01)
        assert set(cost.by_kind()) == {"all-reduce"} and not cost.unknown_loops
        with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED") as error:
            compiled(lambda a: a @ a, (size, size), in_shardings=whole, out_shardings=whole)
        said = str(error.value).split("available HBM (")[1].split("G")[0]
        assert chips.CHIPS[chip].memory == int(float(said) * chips.GIB)
