"""The baseline of the image models: a histogram of each place and channel, on the embedded shapes.

  python -m attention_zoo.train    --config=configs/image/factorised_shapes.py --workdir=DIR
  python -m attention_zoo.evaluate --workdir=DIR --split=test

It is also the base of the other image models' configs. Two CPU cores; no files, no network.
"""

from ml_collections import ConfigDict


def get_config():
  config = ConfigDict()
  config.task = "image_modeling"
  config.model = ConfigDict(dict(name="factorised", d_model=64, matmul_dtype="float32"))
  config.data = ConfigDict(
    dict(
      source="shapes",  # or "images(..)", "tfds(..)": data/images.py
      dir="",  # of the images, or of the prepared TFDS data sets ("" = TFDS' own default)
      train_split="train",
      dev_split="dev",
      test_split="test",
      size=32,  # rows and columns of the images
      num_classes=0,  # that the model is told; 0: none, whatever the source has
      flip=False,  # mirrors half of the training images
      batch_size=32,  # images, over all devices
      seed=0,
    )
  )
  config.optimizer = ConfigDict(
    dict(
      name="adam(b1=0.9, b2=0.98, eps=1e-9)",  # any of training/optimizer.py
      schedule="cosine(decay_steps=400, end_factor=0.1)",  # any of training/schedule.py
      learning_rate=0.01,
      warmup_steps=20,
      d_model=config.model.get_ref("d_model"),  # of "inverse_sqrt"; follows the model's
      clip_norm=0.0,  # 0 = no clipping
    )
  )
  config.train = ConfigDict(
    dict(
      steps=400,
      accumulate=1,
      seed=0,
      log_every=50,
      eval_every=200,
      checkpoint_every=100,
      keep=3,
      max_nonfinite=10,
      ema=0.0,  # decay of the moving average of the parameters that is evaluated and loaded; 0 = none
      best_metric="",  # "loss", ..: the checkpoint with the best figure on dev is kept too
      best_mode="min",  # or "max"
      patience=0,  # evaluations without a better figure that end training; 0 = never
      dev_samples=16,  # images that TensorBoard shows at each evaluation; 0 = none
      # Dropout's generator: "threefry2x32", the same bits everywhere, or "rbg", the hardware's own: see docs/gpu.md.
      random_bits="threefry2x32",
      init_from="",  # fine-tuning: the run whose parameters this one begins with
      init_map=(),  # ((pattern, replacement), ..): from the names here to the names there
      learning_rate_factors=(),  # ((pattern, factor), ..): by a parameter's path; 0 freezes
    )
  )
  config.decode = ConfigDict(dict(temperature=1.0, batch_size=16))  # images that are drawn side by side
  config.mesh = ConfigDict(dict(rules="data_parallel", replica=1, data=-1, fsdp=1, tensor=1))
  return config.lock()
