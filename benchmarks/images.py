"""Image models at an equal budget: bits per dimension on the test split of a folder of images.

  python -m benchmarks.images --data=DIR      # DIR has train and test, folders or zip files; on two CPU cores: hours
  python -m benchmarks.images --part=linear   # local attention to 256 x 256 pixels: memory, operations, time
  options: --steps=2000 --size=32 --batch=16 --runs=DIR (where the runs are kept: the same command goes on)
           --models="gated_pixelcnn; pixelcnn_pp"

The Image Transformer with local 1D, local 2D and full attention, its mixture of logistics, Gated PixelCNN and
PixelCNN++, with the same images in the same order, the same optimizer and as many steps, and about as many parameters,
which the table prints; both mixtures have ten logistics, and dropout is 0.1 (Gated PixelCNN has none). Two baselines
that learn nothing but counts: one histogram for each channel, and one for each place and channel (with one count added
to each value). What papers print of CIFAR-10 stands beside; other data, and other budgets, are not comparable.
"""

import importlib
import pathlib
import tempfile

import numpy as np

from attention_zoo import files
from benchmarks import common

SIZES = dict(d_model=128, d_ff=512, num_heads=4, d_k=32, d_v=32, num_layers=4, dropout=0.1)
TINY = dict(d_model=8, d_ff=8, num_heads=2, d_k=4, d_v=4, num_layers=1, dropout=0.0)
# name -> (config, fields of the model, the paper's bits per dimension on CIFAR-10).
MODELS = {
  "image_transformer, local 1D": ("image_transformer_cifar10", dict(attention="local(block_width=192)"), 2.90),
  "image_transformer, local 2D": (
    "image_transformer_cifar10", dict(attention="local_2d(tile=(8, 8), flange=(4, 4))"), None
  ),
  "image_transformer, full": ("image_transformer_cifar10", dict(attention="dot_product"), None),
  "image_transformer, local 1D, mixture": (
    "image_transformer_cifar10", dict(attention="local(block_width=64)", head="dmol"), 2.90
  ),
  "gated_pixelcnn": ("gated_pixelcnn_shapes", dict(features=78, num_layers=6, output_features=128), 3.03),
  "pixelcnn_pp": (
    "pixelcnn_pp_shapes", dict(features=32, num_blocks=2, num_levels=3, num_components=10, dropout=0.1), 2.92
  ),
}  # fmt: skip


def parse(argv):
  options = common.parser(__doc__)
  options.add_argument("--part", choices=("table", "linear"), default="table")
  options.add_argument("--data", help="the folder with the images; none: the embedded shapes")
  options.add_argument("--steps", type=int, default=2000)
  options.add_argument("--size", type=int, default=32, help="rows and columns")
  options.add_argument("--batch", type=int, default=16, help="images of a step")
  options.add_argument("--runs", help="where the runs are kept (default: a folder that is deleted)")
  options.add_argument("--models", help=f"of {', '.join(MODELS)}; all by default, separated by semicolons")
  return options.parse_args(argv)


def make_config(name, arguments):
  file, fields, _ = MODELS[name]
  config = importlib.import_module(f"attention_zoo.configs.image.{file}").get_config()
  if config.model.name == "image_transformer":
    config.model.update(**(TINY if arguments.tiny else SIZES), dtype="float32", matmul_dtype="float32", **fields)
  elif not arguments.tiny:
    config.model.update(**fields)
  size = 8 if arguments.tiny else arguments.size
  source = "shapes(train=32, dev=8, test=8)" if arguments.tiny else "images" if arguments.data else "shapes"
  config.data.update(
    source=source, dir=str(arguments.data or ""), train_split="train", test_split="test", size=size, num_classes=0,
    dev_split="test" if arguments.data else "dev", batch_size=8 if arguments.tiny else arguments.batch, flip=False,
  )  # fmt: skip
  config.optimizer.update(
    name="adam(b1=0.9, b2=0.98, eps=1e-9)", learning_rate=1e-3, warmup_steps=min(100, arguments.steps), clip_norm=1.0,
    schedule=f"cosine(decay_steps={max(arguments.steps - 100, 1)}, end_factor=0.1)",
  )  # fmt: skip
  every = max(arguments.steps // 4, 1)
  config.train.update(
    steps=arguments.steps, eval_every=every, checkpoint_every=every, log_every=every, keep=1, dev_samples=0
  )
  return config


def train(name, arguments, runs):
  """The loaded run at its last step."""
  import attention_zoo as zoo
  from attention_zoo import tasks
  from attention_zoo.training import loop

  config = make_config(name, arguments)
  workdir = pathlib.Path(runs) / name.replace(", ", "-").replace(" ", "_")
  tasks.validate(config)
  loop.train(tasks.make(config, workdir), config, workdir, quiet=True)
  return zoo.load(workdir)


def histogram_bits(train_NYX3, test_NYX3, by_place) -> float:
  """Bits per dimension of histograms with one count added to each value: of each channel, or also of each place."""
  places = train_NYX3.shape[1] * train_NYX3.shape[2]
  train_NL, test_NL = (pixels.reshape(-1, places, 3) for pixels in (train_NYX3, test_NYX3))
  bits = 0.0
  for i in range(places if by_place else 1):
    at = slice(i, i + 1) if by_place else slice(None)
    for channel in range(3):
      counts = np.bincount(train_NL[:, at, channel].ravel(), minlength=256) + 1
      bits -= np.log2(counts / counts.sum())[test_NL[:, at, channel]].sum()
  return float(bits / test_NYX3.size)


def linear(arguments):
  """(columns, rows) of one layer's attention, value and gradients, by the size of the image."""
  import jax
  import jax.numpy as jnp

  from attention_zoo.ops import local, local_2d

  def on_image(size, *qkv):
    images = (x.reshape(1, size, 3 * size, *x.shape[2:]) for x in qkv)
    return local_2d.masked_local_attention_2d(*images, tile=(8, 24), flange=(4, 12))

  sides = {
    "local 1D, blocks of 128": lambda size, *qkv: local.masked_local_attention_1d(*qkv, block_width=128),
    "local 2D, tiles of 8 x 8 pixels": on_image,
  }
  rows = []
  for name, function in sides.items():
    for size in (8, 16) if arguments.tiny else (32, 64, 128, 256):
      loss = jax.value_and_grad(lambda qkv, f=function, size=size: jnp.square(f(size, *qkv)).sum())
      qkv = [jnp.ones((1, 3 * size * size, 1, 32), jnp.float32)] * 3
      program = jax.jit(loss).lower(qkv).compile()
      run = lambda program=program, qkv=qkv: jax.block_until_ready(program(qkv))
      seconds = common.spread(common.alternate({name: run}, arguments.rounds)[name])[1]
      size_of = program.memory_analysis().temp_size_in_bytes
      figures = [x / size**2 for x in (size_of / 2**10, program.cost_analysis()["flops"] / 1e3, seconds * 1e6)]
      rows.append((name, f"{size} x {size}", *(f"{figure:,.3g}" for figure in figures)))
  return ("attention", "pixels", "KiB a pixel", "10³ operations a pixel", "µs a pixel"), rows


def main(argv=None):
  arguments = parse(argv)
  if arguments.part == "linear":
    common.prepare(1)
    columns, rows = linear(arguments)
    notes = ["One head of 32, float32, value and gradients. What is linear has the same figures for every size."]
    results = {"environment": common.environment(), "rows": rows}
    common.publish("images_linear", "Local attention by the size of the image", columns, rows, notes, results,
                   arguments.out)  # fmt: skip
    return
  names = [name.strip() for name in arguments.models.split(";")] if arguments.models else list(MODELS)
  if unknown := [name for name in names if name not in MODELS]:
    raise SystemExit(f"--models: there is no {unknown[0]!r}; there are {'; '.join(MODELS)}")
  common.prepare(1)
  import jax

  from attention_zoo import tasks

  for name in names:  # before the first is trained for hours
    tasks.validate(make_config(name, arguments))
    tasks.make(make_config(name, arguments), ".")
  rows = []
  with tempfile.TemporaryDirectory() as temporary:
    runs = files.expand(arguments.runs) if arguments.runs else temporary
    for name in names:
      run = train(name, arguments, runs)
      size = sum(leaf.size for leaf in jax.tree.leaves(run.params))
      bits = run.evaluate("test").record["bits"]["bits_per_dim"]
      paper = f"{MODELS[name][2]:.2f}" if MODELS[name][2] else "-"
      rows.append((name, f"{size:,}", paper, f"{bits:.4f}"))
    train_pixels, test_pixels = (run.task.pictures(split)[0] for split in ("train", "test"))
  for name, by_place in (("a histogram for each channel", False), ("a histogram for each place and channel", True)):
    rows.append((name, "-", "-", f"{histogram_bits(train_pixels, test_pixels, by_place):.4f}"))
  columns = ("model", "parameters", "paper, CIFAR-10 (not comparable)", "ours, test, bits per dimension")
  notes = [f"{arguments.steps:,} steps of {arguments.batch} images of {test_pixels.shape[1]} x {test_pixels.shape[2]}."]
  results = {"environment": common.environment(), "rows": rows}
  common.publish("images", "Images at an equal budget", columns, rows, notes, results, arguments.out)


if __name__ == "__main__":
  main()
