"""The published human evaluation: its figures, and which run is compared with which."""

import pytest

from attention_zoo.evaluation import human
from attention_zoo.models import MODELS


def test_the_table_has_what_is_printed():
  shown = [(row.name, row.shown) for row in human.TABLE]
  assert len(shown) == 11 and len(set(shown)) == 11
  assert shown[:3] == [
    ("ResNet", "4 %"), ("srez GAN", "8.5 %"), ("Pixel Recursive, temperature 1", "11 %"),
  ]  # fmt: skip
  assert shown[-1] == ("Image Transformer, local 2-D, temperature 0.8", "30.64 ± 4 %")
  assert all(row.model in MODELS and 0 < row.fooled < 50 for row in human.TABLE)


@pytest.mark.parametrize(
  ("config", "name"),
  [
    (("resnet_sr", "none", 0.7), "ResNet"),
    (("srez_gan", "none", None), "srez GAN"),
    (("image_transformer_sr", "local", 0.9), "Image Transformer, local 1-D, temperature 0.9"),
    (("image_transformer_sr", "local_2d", 1.0), "Image Transformer, local 2-D, temperature 1"),
    (("image_transformer_sr", "dot_product", 1.0), None),
    (("image_transformer_sr", "local", 0.7), None),
  ],
)
def test_a_run_stands_in_the_row_of_its_system_and_temperature(config, name):
  row = human.row_of(*config)
  assert (row.name if row else None) == name
