"""The Image Transformer of Parmar et al. 2018 on CelebA: super-resolution from 8 x 8 to 32 x 32 pixels.

  python -m attention_zoo.train  --config=configs/image/image_transformer_celeba_sr.py --workdir=DIR
  python -m attention_zoo.sample --workdir=DIR --image=small.png --num_samples=8 --temperature=0.8 --output=grid.png

The paper shows its samples to people, who take 35.9 % of them for photographs, at temperature 1.0 (local 1D attention,
2.90 bits per dimension without an encoder on CIFAR-10). Ours: not run. Hardware: TPU v5e:2x4, or another slice of eight
chips. Four layers in the encoder and twelve in the decoder, from memory; the rest is that of
image_transformer_cifar10.py.
"""

from attention_zoo.configs.image import image_transformer_cifar10


def get_config():
  config = image_transformer_cifar10.get_config()
  config.task = "super_resolution"
  with config.unlocked():
    config.model.update(name="image_transformer_sr", num_encoder_layers=4, dropout=0.1)
    config.data.update(
      source="tfds(name='celeb_a')", train_split="train", dev_split="validation", test_split="test", low_size=8
    )
  return config
