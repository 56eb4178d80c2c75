"""Reading the text of compiled programs."""

import pytest

from attention_zoo.training import hlo

HEAD = "HloModule jit_step, is_scheduled=true, num_partitions=8\n\n"


def program(body):
  return hlo.Program(HEAD + body)


def sent(body):
  return [(x.kind, x.bytes, x.group, x.times) for x in program(body).collectives()]


def test_collectives_of_every_kind_and_spelling():
  assert sent("""
%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

ENTRY %main (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  %one = f32[8,128]{1,0:T(8,128)S(1)} all-reduce(%p), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %two = (bf16[4,128]{1,0:T(4,128)(2,1)}, f32[]{:T(128)}, /*index=2*/f32[2]{0}) all-reduce(%p, %p, %p), channel_id=2, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, to_apply=%add
  %three = f32[8,512]{1,0} all-gather(%p), channel_id=3, replica_groups=[2,4]<=[8], dimensions={1}
  %four = f32[2,128]{1,0} reduce-scatter(%p), channel_id=4, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, to_apply=%add
  %five = (f32[8,128]{1,0}, f32[8,1024]{1,0}) all-gather-start(%p), channel_id=5, replica_groups={}, dimensions={1}
  %six = f32[8,1024]{1,0} all-gather-done(%five)
  %seven = f32[8,128]{1,0} all-to-all(%p), channel_id=6, replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}
  %eight = f32[8,128]{1,0} collective-permute(%p), channel_id=7, source_target_pairs={{0,1},{1,0}}
  %nine = (f32[8,128]{1,0}, f32[8,128]{1,0:T(8,128)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%p), channel_id=8, source_target_pairs={{0,1},{1,0}}
  %ten = ((f32[8,128]{1,0}, f32[2]{0}), (f32[8,1024]{1,0}, f32[16]{0})) all-gather-start(%p, %q), channel_id=9, replica_groups={}, dimensions={1}
  ROOT %eleven = (f32[8,128]{1,0}, f32[2]{0}) all-reduce-start(%p, %q), channel_id=10, replica_groups={}
}
""") == [  # noqa: E501
    ("all-reduce", 4096, 8, 1),
    ("all-reduce", 1024 + 4 + 8, 4, 1),
    ("all-gather", 16384, 4, 1),
    ("reduce-scatter", 4096, 4, 1),
    ("all-gather", 32768, 8, 1),
    ("all-to-all", 4096, 2, 1),
    ("collective-permute", 4096, 8, 1),
    ("collective-permute", 4096, 8, 1),
    ("all-gather", 32768 + 64, 8, 1),
    ("all-reduce", 4096 + 8, 8, 1),
  ]  # fmt: skip


# XLA's way of a product whose operand goes round in a ring: two steps a turn, so 12 shards are 6 turns.
LOOP = """
%body (t: (u32[], f32[1024], u32[])) -> (u32[], f32[1024], u32[]) {
  %two = u32[]{:T(128)} constant(2)
  %t = (u32[]{:T(128)}, f32[1024]{0:T(1024)}, u32[]{:T(128)}) parameter(0)
  %x = f32[1024]{0:T(1024)} get-tuple-element(%t), index=1
  %i = u32[]{:T(128)} get-tuple-element(%t), index=0
  %n = u32[]{:T(128)} get-tuple-element(%t), index=2
  %r = f32[1024]{0:T(1024)} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}
  %next = u32[]{:T(128)S(6)} add(%i, %two)
  ROOT %tuple = (u32[]{:T(128)}, f32[1024]{0:T(1024)}, u32[]{:T(128)}) tuple(%next, %r, %n)
}

%condition (t.1: (u32[], f32[1024], u32[])) -> pred[] {
  %limit = u32[]{:T(128)} constant(12)
  %t.1 = (u32[]{:T(128)}, f32[1024]{0:T(1024)}, u32[]{:T(128)}) parameter(0)
  %i.1 = u32[]{:T(128)} get-tuple-element(%t.1), index=0
  ROOT %less = pred[]{:T(512)S(6)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (p: f32[1024]) -> f32[1024] {
  %p = f32[1024]{0:T(1024)} parameter(0)
  %zero = u32[]{:T(128)} constant(0)
  %limit.1 = u32[]{:T(128)} constant(11)
  %start = u32[]{:T(128)S(6)} copy(%zero)
  %first = (u32[]{:T(128)}, f32[1024]{0:T(1024)}, u32[]{:T(128)}) tuple(%start, %p, %limit.1)
  %w = (u32[]{:T(128)}, f32[1024]{0:T(1024)}, u32[]{:T(128)}) while(%first), condition=%condition, body=%body
  ROOT %result = f32[1024]{0:T(1024)} get-tuple-element(%w), index=1
}
"""
CARRIED = LOOP.replace("constant(12)", "get-tuple-element(%t.1), index=2")


def test_what_is_in_a_loop_counts_as_often_as_it_runs():
  loop = program(LOOP)
  assert sent(LOOP) == [("all-reduce", 4096, 8, 6)] and not loop.unknown_loops
  # The numbers of addition, comparison and, once, copy lie in HBM as well.
  assert loop.hbm_bytes() == 6 * (2 * 4096 + 8 + 8) + 4
  # From 1 to 11, from 0 to a limit that came in as a constant, and in steps of 1.
  assert sent(LOOP.replace("constant(0)", "constant(1)").replace("12", "11")) == [("all-reduce", 4096, 8, 5)]
  assert sent(CARRIED) == [("all-reduce", 4096, 8, 6)]
  assert sent(LOOP.replace("constant(2)", "constant(1)").replace("u32", "s32")) == [
    ("all-reduce", 4096, 8, 12)
  ]


@pytest.mark.parametrize(
  "unknown",
  [
    LOOP.replace("direction=LT", "direction=NE"),
    LOOP.replace("add(%i, %two)", "multiply(%i, %two)"),
    LOOP.replace("constant(0)", "partition-id()"),
    CARRIED.replace("tuple(%next, %r, %n)", "tuple(%next, %r, %next)"),
    CARRIED.replace("constant(11)", "partition-id()"),
  ],
)
def test_loops_of_unknown_length_count_once_and_are_counted(unknown):
  assert program(unknown).unknown_loops == 1
  assert sent(unknown) == [("all-reduce", 4096, 8, 1)]


# An all-gather that runs beside arithmetic: pieces, which may be in a loop, its start and its end.
CHAIN = """
%piece (b: bf16[4,32], c: bf16[4,256], d: s32[2], e: u32[], x: f32[64]) -> (f32[64], bf16[4,32], bf16[4,256], bf16[4,256], s32[2], u32[]) {
  %x = f32[64]{0} parameter(4)
  %y = f32[64]{0} multiply(%x, %x)
  %b = bf16[4,32]{1,0} parameter(0)
  %c = bf16[4,256]{1,0} parameter(1)
  %g.2 = bf16[4,256]{1,0} all-gather(%b), channel_id=9, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={1}, frontend_attributes={chain_id="5"}
  %d = s32[2]{0:S(4)} parameter(2)
  %e = u32[]{:S(2)} parameter(3)
  ROOT %parts = (f32[64]{0}, bf16[4,32]{1,0}, bf16[4,256]{1,0}, bf16[4,256]{1,0}, s32[2]{0:S(4)}, u32[]{:S(2)}) tuple(%y, %b, %c, %g.2, %d, %e)
}

%start (a: bf16[4,32]) -> (bf16[4,32], bf16[4,256], s32[2], u32[]) {
  %a = bf16[4,32]{1,0} parameter(0)
  %g.1 = bf16[4,256]{1,0} all-gather(%a), channel_id=9, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={1}, frontend_attributes={chain_id="5"}
  ROOT %started = (bf16[4,32]{1,0}, bf16[4,256]{1,0}, s32[2]{0:S(4)}, u32[]{:S(2)}) custom-call(%g.1), custom_call_target="AsyncCollectiveStart"
}

%end (f: bf16[4,32], g: bf16[4,256], h: s32[2], i: u32[]) -> bf16[4,256] {
  %f = bf16[4,32]{1,0} parameter(0)
  %g = bf16[4,256]{1,0} parameter(1)
  %g.3 = bf16[4,256]{1,0} all-gather(%f), channel_id=9, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={1}, frontend_attributes={chain_id="5"}
  %h = s32[2]{0:S(4)} parameter(2)
  %i = u32[]{:S(2)} parameter(3)
  ROOT %whole = bf16[4,256]{1,0} custom-call(%f, %g, %g.3, %h, %i), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (p: bf16[4,32], q: f32[64]) -> bf16[4,256] {
  %p = bf16[4,32]{1,0} parameter(0)
  %q = f32[64]{0} parameter(1)
  %async-collective-start = (bf16[4,32]{1,0}, bf16[4,256]{1,0}, s32[2]{0:S(4)}, u32[]{:S(2)}) fusion(%p), kind=kCustom, output_to_operand_aliasing={{0}: (0, {})}, calls=%start
  %p.1 = bf16[4,32]{1,0} get-tuple-element(%async-collective-start), index=0
  %g.4 = bf16[4,256]{1,0} get-tuple-element(%async-collective-start), index=1
  %s.1 = s32[2]{0:S(4)} get-tuple-element(%async-collective-start), index=2
  %u.1 = u32[]{:S(2)} get-tuple-element(%async-collective-start), index=3
  %fusion.1 = (f32[64]{0}, bf16[4,32]{1,0}, bf16[4,256]{1,0}, bf16[4,256]{1,0}, s32[2]{0:S(4)}, u32[]{:S(2)}) fusion(%p.1, %g.4, %s.1, %u.1, %q), kind=kOutput, output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {}), {3}: (1, {}), {4}: (2, {}), {5}: (3, {})}, calls=%piece
  %p.2 = bf16[4,32]{1,0} get-tuple-element(%fusion.1), index=1
  %g.5 = bf16[4,256]{1,0} get-tuple-element(%fusion.1), index=3
  %s.2 = s32[2]{0:S(4)} get-tuple-element(%fusion.1), index=4
  %u.2 = u32[]{:S(2)} get-tuple-element(%fusion.1), index=5
  %fusion.2 = (f32[64]{0}, bf16[4,32]{1,0}, bf16[4,256]{1,0}, bf16[4,256]{1,0}, s32[2]{0:S(4)}, u32[]{:S(2)}) fusion(%p.2, %g.5, %s.2, %u.2, %q), kind=kOutput, output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {}), {3}: (1, {}), {4}: (2, {}), {5}: (3, {})}, calls=%piece
  %p.3 = bf16[4,32]{1,0} get-tuple-element(%fusion.2), index=1
  %g.6 = bf16[4,256]{1,0} get-tuple-element(%fusion.2), index=3
  %s.3 = s32[2]{0:S(4)} get-tuple-element(%fusion.2), index=4
  %u.3 = u32[]{:S(2)} get-tuple-element(%fusion.2), index=5
  ROOT %async-collective-done = bf16[4,256]{1,0} fusion(%p.3, %g.6, %s.3, %u.3), kind=kCustom, output_to_operand_aliasing={{}: (1, {})}, calls=%end
}
"""  # noqa: E501


def test_a_collective_that_was_split_up_counts_once():
  assert sent(CHAIN) == [("all-gather", 2048, 8, 1)]
  # The shard is read and the whole written once; the pieces' arithmetic reads and writes beside it.
  assert program(CHAIN).hbm_bytes() == 256 + 2048 + 2 * 2 * 256


def test_a_scatter_is_an_all_reduce_of_which_a_part_stays_and_the_network_is_apart():
  text = """
%all-reduce-scatter.3 (r: f32[64,128]) -> f32[8,128] {
  %r = f32[64,128]{1,0} parameter(0)
  %c = s32[] constant(0)
  %whole = f32[64,128]{1,0} all-reduce(%r), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}
  ROOT %mine = f32[8,128]{1,0} dynamic-slice(%whole, %c, %c), dynamic_slice_sizes={8,128}
}

ENTRY %main (s: f32[64,128]) -> f32[8,128] {
  %s = f32[64,128]{1,0} parameter(0)
  %m = f32[8,128]{1,0} fusion(%s), kind=kCustom, calls=%all-reduce-scatter.3
  %t = token[] after-all()
  %send = (f32[8,128]{1,0}, u32[], token[]) send(%m, %t), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
  %sent = token[] send-done(%send), channel_id=3
  ROOT %copy = f32[8,128]{1,0} copy(%m)
}
"""  # noqa: E501
  assert sent(text) == [("reduce-scatter", 32768, 8, 1), ("between slices", 4096, 8, 1)]
  # All of it is read for a part; sent from where it lies; copied.
  assert program(text).hbm_bytes() == 32768 + 4096 + 4096 + 2 * 4096


def test_only_what_leaves_the_chip_is_traffic():
  text = """
%rows (table: f32[1000,128], ids: s32[4]) -> f32[4,128] {
  %table = f32[1000,128]{1,0} parameter(0)
  %ids = s32[4]{0} parameter(1)
  ROOT %g = f32[4,128]{1,0} gather(%table, %ids), offset_dims={1}
}

%write (big: f32[1000,128], row: f32[4,128], at: s32[]) -> f32[1000,128] {
  %big = f32[1000,128]{1,0} parameter(0)
  %row = f32[4,128]{1,0} parameter(1)
  %at = s32[] parameter(2)
  ROOT %u = f32[1000,128]{1,0} dynamic-update-slice(%big, %row, %at, %at)
}

ENTRY %main (p: f32[1000,128], q: s32[4]) -> f32[1000,128] {
  %p = f32[1000,128]{1,0} parameter(0)
  %q = s32[4]{0:S(1)} parameter(1)
  %zero = s32[] constant(0)
  %f = f32[4,128]{1,0} fusion(%p, %q), kind=kLoop, calls=%rows
  %h = f32[4,128]{1,0:S(1)} multiply(%f, %f)
  %s = (f32[4,128]{1,0}, f32[4,128]{1,0:S(1)}, u32[]{:S(2)}) copy-start(%h)
  %d = f32[4,128]{1,0} copy-done(%s)
  ROOT %w = f32[1000,128]{1,0} fusion(%p, %d, %zero), kind=kLoop, calls=%write
}
"""
  # Rows gathered and written; read; copied off the chip; read, with where they go, and written in place.
  part = 4 * 128 * 4
  assert program(text).hbm_bytes() == (part + part) + part + part + (part + 4 + part)


def test_what_is_handed_on_or_aliased_is_no_traffic():
  assert (
    program("""
%view (v: f32[1000,128]) -> f32[1000,1,128] {
  %v = f32[1000,128]{1,0} parameter(0)
  ROOT %b = f32[1000,1,128]{2,1,0} bitcast(%v)
}

%cut (w: f32[1000,128], at.1: s32[]) -> f32[4,128] {
  %w = f32[1000,128]{1,0} parameter(0)
  %at.1 = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  ROOT %d = f32[4,128]{1,0} dynamic-slice(%w, %at.1, %zero.1), dynamic_slice_sizes={4,128}
}

%several (big: f32[1000,128], row: f32[4,128], at: s32[], other: f32[1000,128], third: f32[1000,128]) -> (f32[1000,128], f32[1000,128], f32[128]) {
  %big = f32[1000,128]{1,0} parameter(0)
  %row = f32[4,128]{1,0} parameter(1)
  %at = s32[] parameter(2)
  %zero = s32[] constant(0)
  %u = f32[1000,128]{1,0} dynamic-update-slice(%big, %row, %at, %zero)
  %other = f32[1000,128]{1,0} parameter(3)
  %third = f32[1000,128]{1,0} parameter(4)
  %whole = f32[1000,1,128]{2,1,0} fusion(%third), kind=kLoop, calls=%view
  %part = f32[4,128]{1,0} fusion(%other, %at), kind=kLoop, calls=%cut
  %s = f32[128]{0} custom-call(%whole, %part), custom_call_target="Sum"
  ROOT %results = (f32[1000,128]{1,0}, f32[1000,128]{1,0}, f32[128]{0}) tuple(%u, %other, %s)
}

ENTRY %main (p: f32[1000,128], q: f32[4,128], o: f32[1000,128], t: f32[1000,128]) -> f32[128] {
  %p = f32[1000,128]{1,0} parameter(0)
  %q = f32[4,128]{1,0} parameter(1)
  %o = f32[1000,128]{1,0} parameter(2)
  %t = f32[1000,128]{1,0} parameter(3)
  %at.2 = s32[]{:S(6)} constant(5)
  %f = (f32[1000,128]{1,0}, f32[1000,128]{1,0}, f32[128]{0}) fusion(%p, %q, %at.2, %o, %t), kind=kLoop, calls=%several
  %room = f32[1000,128]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  %beside = f32[8,128]{1,0} custom-call(%q, %q), custom_call_target="ConcatBitcast"
  %crop = f32[1000,128]{1,0} custom-call(%room), custom_call_target="ZeroCrop", output_to_operand_aliasing={{}: (0, {})}
  ROOT %r = f32[128]{0} get-tuple-element(%f), index=2
}
""").hbm_bytes()  # noqa: E501
    # An update in place, rows of what is handed on as well, all of what is seen through a bitcast, the result.
    == 2 * 4 * 128 * 4 + 4 * 128 * 4 + 1000 * 128 * 4 + 128 * 4
  )


def test_copies_to_the_chip_and_pieces_of_buffers():
  assert (
    program("""
ENTRY %main (p: f32[128,256]) -> f32[32,256] {
  %p = f32[128,256]{1,0} parameter(0)
  %s.1 = ((f32[128,256]{1,0}), f32[32,256]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[96:128], [0:256]}
  %d.1 = f32[32,256]{1,0:T(8,128)S(1)} slice-done(%s.1)
  %s.2 = (f32[128,256]{1,0:T(8,128)S(1)}, f32[128,256]{1,0}, u32[]{:S(2)}) copy-start(%p)
  %d.2 = f32[128,256]{1,0:T(8,128)S(1)} copy-done(%s.2)
  %cut = f32[16,256]{1,0:T(8,128)S(1)} slice(%p), slice={[0:16], [0:256]}
  %s.3 = (f32[32,256]{1,0}, f32[32,256]{1,0:T(8,128)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%d.1), channel_id=1, source_target_pairs={{0,1},{1,0}}
  ROOT %d.3 = f32[32,256]{1,0} collective-permute-done(%s.3)
}
""").hbm_bytes()  # noqa: E501
    == (32 + 128 + 16) * 1024  # the permuted rows came and stay on the chip
  )


def test_a_ring_sends_its_share():
  assert hlo.Collective("all-reduce", 800, 8, 3).sent == 3 * 2 * 700
  assert (
    hlo.Collective("reduce-scatter", 800, 8, 1).sent == hlo.Collective("all-gather", 800, 8, 1).sent == 700
  )
  assert hlo.Collective("between slices", 800, 8, 1).sent == 800
