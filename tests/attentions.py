"""Every self-attention that a config can name, with options that suit texts of a few tokens."""

from attention_zoo.ops import variant

_OPTIONS = {
  "additive": "additive(width=5)",
  "local": "local(block_width=2)",
  "memory_compressed": "memory_compressed(width=3, stride=2)",
  "music_local": "music_local(block_width=2)",
  "shaw": "shaw(max_distance=2, shared=False)",
  "sliding_window": "sliding_window(width=2)",
  "t5": "t5(num_buckets=8, max_distance=6)",
  "time_restricted": "time_restricted(left=3)",
}
TEXTS = {name: _OPTIONS.get(name, name) for name in sorted(variant.by_name())}
