"""A small Image Transformer on the embedded shapes, told the class: minutes on two CPU cores, no files, no network.

  python -m attention_zoo.train    --config=configs/image/quickstart.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test --report
  python -m attention_zoo.sample   --workdir=DIR --label=circle --num_samples=16 --output=grid.png

Pictures of 16 x 16 pixels; local 1D attention to the last two to four rows of them.
"""

from attention_zoo.configs.image import image_transformer_cifar10


def get_config():
  config = image_transformer_cifar10.get_config()
  config.model.update(
    d_model=64, d_ff=256, num_heads=4, d_k=16, d_v=16, num_layers=3, dropout=0.0, residual="pre", dtype="float32",
    matmul_dtype="float32", attention="local(block_width=96, memory_width=96)",
  )  # fmt: skip
  config.data.update(
    source="shapes", train_split="train", dev_split="dev", size=16, num_classes=4, flip=False, batch_size=16
  )
  config.optimizer.update(
    schedule="cosine(decay_steps=800, end_factor=0.1)", learning_rate=3e-3, warmup_steps=50, d_model=64, clip_norm=1.0
  )
  config.train.update(steps=800, log_every=50, eval_every=400, checkpoint_every=200, keep=3)
  return config
