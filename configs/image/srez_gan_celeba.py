"""srez (Garcia 2016, github.com/david-gpu/srez) on CelebA, super-resolution from 8 x 8 to 32 x 32.

  python -m attention_zoo.train  --config=configs/image/srez_gan_celeba.py --workdir=DIR
  python -m attention_zoo.sample --workdir=DIR --image=small.png --output=large.png

Of people who are shown its images, 8.5 % are fooled into taking them for photographs (Parmar et al. 2018, table 3).
Widths, losses, noise, batches and rates as in srez's first commit (153587ba), for 16 x 16 to 64 x 64
(--config.data.size=64 --config.data.low_size=16); later ones begin at the rate 2e-4 and halve it every 5,000 steps.
Published hardware: 130,000 batches in 3 hours on a GTX 1080. Ours: not run.
"""

from attention_zoo.configs.image import image_transformer_celeba_sr, srez_gan_shapes


def get_config():
  config = srez_gan_shapes.get_config()
  config.model.update(
    num_blocks=2, generator_widths=(256, 128, 96), discriminator_widths=(64, 128, 256, 512)
  )
  config.data.update(image_transformer_celeba_sr.get_config().data)
  config.data.update(batch_size=16, flip=True)
  # The rate is halved after every 10,000 steps.
  config.optimizer.update(schedule="stepwise(begin=10_000, decay_steps=10_000, decay_rate=0.5)")
  config.train.update(steps=130_000, log_every=200, eval_every=10_000, checkpoint_every=5000)
  return config
