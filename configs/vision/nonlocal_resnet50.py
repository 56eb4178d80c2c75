"""ResNet-50 with five non-local blocks (Wang et al. 2018, arXiv:1711.07971), as a classifier of images.

  python -m attention_zoo.train    --config=configs/vision/nonlocal_resnet50.py --workdir=DIR --config.data.dir=FOLDER
  python -m attention_zoo.evaluate --workdir=DIR --split=test

The paper's numbers are of videos: 77.7 % of Kinetics top-1 with the larger ResNet-101, inflated (I3D); they cannot be
compared with those of images. Sizes of the network are Table 1's and section 4.1's; the schedule is for ImageNet.
Hardware and ours: not run. The images of a split are held in memory, at most 64 GiB of them: some 450,000 of 224 x 224.
FOLDER has to hold no more.
"""


from attention_zoo.configs.vision import nonlocal_markers


def get_config():
  config = nonlocal_markers.get_config()
  config.model.update(
    form="embedded_gaussian", widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3), strides=(1, 2, 2, 2),
    nonlocal_blocks=(0, 2, 3, 0), expansion=4, stem_kernel_size=7, stem_stride=2, pool=2, dropout=0.5,
  )  # fmt: skip
  config.data.update(source="images", size=224, num_classes=1000, flip=True, batch_size=256)
  config.optimizer.update(
    name="sgd(momentum=0.9)", schedule="cosine(decay_steps=450_000)", learning_rate=0.1, warmup_steps=5000, d_model=64
  )
  config.train.update(steps=450_000, log_every=100, eval_every=5000, checkpoint_every=5000)
  return config
