"""The config of a run that was not trained here: all that config.json must hold, with what fine-tuning may begin with.

data.source is "text" without a directory: `--data_dir` of evaluate names one, fine-tuning needs a config of its own.
"""

TRAIN = dict(
  steps=100_000, label_smoothing=0.0, accumulate=1, seed=0, log_every=100, eval_every=2000, checkpoint_every=2000,
  keep=5, max_nonfinite=10, ema=0.0, best_metric="", best_mode="min", patience=0, dev_samples=3,
  random_bits="threefry2x32", init_from="", init_map=(), learning_rate_factors=(),
)  # fmt: skip
OPTIMIZER = dict(name="adam(b1=0.9, b2=0.98, eps=1e-9)", schedule="constant", learning_rate=1e-5, warmup_steps=1000)
MESH = dict(rules="data_parallel", replica=1, data=-1, fsdp=1, tensor=1)
TRANSFORMER = dict(
  feed_forward="dense", position_mode="add", dtype="float32", matmul_dtype="float32", remat=False, scan_layers=False,
)  # fmt: skip
DATA = dict(
  source="text", dir="", train_split="train", dev_split="dev", test_split="test", normalization="identity",
  split_digits=False, batch_tokens=8192, row_multiple=8, seed=0, cache_dir="",
)  # fmt: skip


def config(task, model, data, decode) -> dict:
  """The whole. model, data, decode: what is the task's own."""
  return {
    "task": task,
    "model": TRANSFORMER | model,
    "data": DATA | data,
    "optimizer": OPTIMIZER | {"d_model": model["d_model"], "clip_norm": 1.0},
    "train": TRAIN,
    "decode": decode,
    "mesh": MESH,
  }
