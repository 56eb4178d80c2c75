"""SAGAN (Zhang et al. 2019, arXiv:1805.08318) on ImageNet at 128 x 128: 18.65 FID, 52.52 Inception score.

  python -m attention_zoo.train --config=configs/vision/sagan_imagenet.py --workdir=DIR --config.data.dir=FOLDER

Learning rates of 4e-4 for the discriminator and 1e-4 for the generator, one step of each in turn (section 4.2; here
both at once). Hardware and ours: not run. The images are held in memory: all of ImageNet takes 59 GiB. Nothing here
computes FID or the Inception score; `evaluate` tells other figures.
"""

from attention_zoo.configs.vision import sagan_markers


def get_config():
  config = sagan_markers.get_config()
  config.model.update(features=64, d_noise=128, attention_size=32)
  config.data.update(source="images", size=128, num_classes=1000, flip=True, batch_size=256)
  config.train.update(steps=1_000_000, log_every=500, eval_every=10_000, checkpoint_every=5000, ema=0.999)
  return config
