"""What classifiers and adversarial networks do beside what every task does: classify, sample; models of other tasks."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from attention_zoo import tasks
from attention_zoo.configs.image import factorised_shapes
from attention_zoo.configs.vision import nonlocal_markers, sagan_markers
from attention_zoo.errors import UserError


def make(config, workdir):
  config.data.update(source="markers(train=8, dev=4, test=4)", batch_size=4, size=8 if config.task != "gan" else 16)
  if config.task == "gan":
    config.model.update(features=8, d_noise=4, attention_size=8)
    config.data.update(num_classes=2)
  else:
    config.model.update(widths=(4,), blocks=(1,), nonlocal_blocks=(1,))
  config.decode.batch_size = 8
  tasks.validate(config)
  task = tasks.make(config, workdir)
  task.claim()
  return task.runner(*jax.jit(task.init)(jax.random.key(0)), checkpoint="latest", step=0)


def test_images_are_classified(tmp_path):
  run = make(nonlocal_markers.get_config(), tmp_path)
  pixels, _ = run.task.pictures("dev")
  found = run.classify(pixels)
  assert len(found) == 4
  for each in found:
    assert set(each.probabilities) == {"different", "same"} and sum(each.probabilities.values()) == pytest.approx(1)
    assert each.label == max(each.probabilities, key=each.probabilities.get) == next(iter(each.probabilities))
  alone = run.classify([pixels[2]])[0]
  assert alone.probabilities == pytest.approx(found[2].probabilities, rel=1e-5)
  evaluation = run.evaluate("dev")
  assert np.sum(evaluation.record["confusion"]) == 4
  assert np.trace(evaluation.record["confusion"]) / 4 == pytest.approx(evaluation.scores[0].value)
  assert [each["found"] for each in evaluation.samples] == [each.label for each in found]


def test_images_are_drawn_by_seed_and_label(tmp_path):
  run = make(sagan_markers.get_config(), tmp_path)
  three = run.sample(3, label=["same", "different", "same"], seed=5)
  assert three.pixels.shape == (3, 16, 16, 3) and three.pixels.dtype == np.uint8
  assert three.labels == ("same", "different", "same")
  np.testing.assert_array_equal(run.sample(1, label="same", seed=7).pixels[0], three.pixels[2])
  assert (run.sample(3, label="same", seed=5).pixels[0] == three.pixels[0]).all()
  with pytest.raises(UserError, match="there is no class 'sam' .did you mean 'same'"):
    run.sample(label="sam")


def with_model(config, **model):
  config.model = ConfigDict(model).lock()
  return config


@pytest.mark.parametrize(
  ("config", "model", "message"),
  [
    (nonlocal_markers, dict(name="pixelcnn_pp"), "'pixelcnn_pp' is no classifier"),
    (sagan_markers, dict(name="nonlocal_net"), "'nonlocal_net' is no pair of generator and discriminator"),
    (factorised_shapes, dict(name="sagan", attention_size=16), "'sagan' has the head 'players', which is not one of"),
  ],
)
def test_a_model_of_another_task_is_told(config, model, message, tmp_path):
  config = config.get_config()
  config.data.update(size=32, num_classes=2)
  with pytest.raises(UserError, match=message):
    tasks.make(with_model(config, **model), tmp_path)


@pytest.mark.parametrize(
  ("config", "number", "message"),
  [
    (sagan_markers, 1, "num_classes = 1: a single class tells a model nothing, set it to 0"),
    (nonlocal_markers, 1, "a classifier needs config.data.num_classes of at least 2"),
    (nonlocal_markers, 0, "a classifier needs config.data.num_classes of at least 2"),
  ],
)
def test_one_class_is_none(config, number, message, tmp_path):
  config = config.get_config()
  config.data.num_classes = number
  with pytest.raises(UserError, match=message):
    tasks.make(config, tmp_path)
