"""The Image Transformer of Parmar et al. 2018 on CIFAR-10: local 1D attention, 256-way softmax, unconditional.

  python -m attention_zoo.train    --config=configs/image/image_transformer_cifar10.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

The paper: 2.90 bits per dimension on test. Ours: not run. Hardware: TPU v5e:2x4, or another slice of eight chips. 12
layers of width 512 with 4 heads, d_ff 2,048, dropout 0.3, blocks and memory of 256; these sizes, the schedule and the
batch are from memory. `tfds build cifar10 --file_format=array_record` prepares the data, on a machine with TensorFlow.
"""

from ml_collections import ConfigDict

from attention_zoo.configs.image import factorised_shapes


def get_config():
  config = factorised_shapes.get_config()
  # Another model has other fields, so that the group is replaced as a whole.
  config.model = ConfigDict(
    dict(
      name="image_transformer", d_model=512, d_ff=2048, num_heads=4, d_k=128, d_v=128, num_layers=12, dropout=0.3,
      attention_dropout=0.0, residual="post", positions="sinusoidal", head="categorical", num_mixtures=10,
      attention="local(block_width=256, memory_width=256)", dtype="bfloat16", matmul_dtype="bfloat16", remat=False,
      scan_layers=False,
    )  # fmt: skip
  ).lock()
  # TFDS has no dev split; the last 5,000 training images are it.
  config.data.update(
    source="tfds(name='cifar10')", train_split="train[:45000]", dev_split="train[45000:]", flip=True, batch_size=32
  )
  config.optimizer.update(schedule="inverse_sqrt", learning_rate=0.5, warmup_steps=8000, d_model=512)
  config.train.update(steps=500_000, log_every=100, eval_every=5000, checkpoint_every=2500, keep=5)
  return config
