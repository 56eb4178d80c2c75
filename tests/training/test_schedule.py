import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from attention_zoo.errors import UserError
from attention_zoo.training.optimizer import make_optimizer
from attention_zoo.training.schedule import check_width, make_schedule


def optimizer_config(**changes):
  return ConfigDict(
    {
      "name": "adam(b1=0.9, b2=0.98, eps=1e-9)",
      "schedule": "inverse_sqrt",
      "learning_rate": 1.0,
      "warmup_steps": 4000,
      "d_model": 512,
      "clip_norm": 0.0,
      **changes,
    }
  )


@pytest.mark.parametrize(
  ("step", "expected"),
  [
    (1, 1.746928107421711e-07),  # 512^-0.5 * 4000^-1.5
    (1000, 1.746928107421711e-04),
    (4000, 6.987712429686843e-04),  # the peak, 512^-0.5 * 4000^-0.5
    (16000, 3.4938562148434214e-04),  # four times the steps, half the rate
    (100000, 1.3975424859373686e-04),  # 512^-0.5 * 100000^-0.5
  ],
)
def test_inverse_sqrt_is_the_papers_formula(step, expected):
  schedule = make_schedule(optimizer_config())
  np.testing.assert_allclose(schedule(step - 1), expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("name", "step", "expected"),
  [
    ("exponential", 5, 1.0),  # half of the warmup
    ("exponential", 10, 2.0),
    ("exponential", 110, 1.0),  # one half-life later
    ("exponential", 210, 0.5),
    ("exponential", 10010, 0.2),  # the floor
    ("linear", 5, 1.0),
    ("linear", 60, 1.1),
    ("linear", 110, 0.2),
    ("linear", 5000, 0.2),
    ("constant", 5, 1.0),
    ("constant", 5000, 2.0),
    ("cosine", 5, 1.0),
    ("cosine", 10, 2.0),
    ("cosine", 60, 1.1),  # half way: the mean of 2 and 0.2
    ("cosine", 110, 0.2),
    ("cosine", 5000, 0.2),
  ],
)
def test_decays_at_hand_computed_steps(name, step, expected):
  rate = "decay_rate=0.5, " if name == "exponential" else ""
  schedule = name if name == "constant" else f"{name}(decay_steps=100, {rate}end_factor=0.1)"
  config = optimizer_config(schedule=schedule, learning_rate=2.0, warmup_steps=10)
  np.testing.assert_allclose(make_schedule(config)(step - 1), expected, rtol=1e-5)


@pytest.mark.parametrize(
  ("step", "expected"), [(5, 1.0), (10, 2.0), (50, 2.0), (51, 1.0), (150, 1.0), (151, 0.5), (251, 0.25)]
)
def test_stepwise_falls_at_once_and_then_every_so_many_steps(step, expected):
  config = optimizer_config(schedule="stepwise(begin=50, decay_steps=100)", learning_rate=2.0, warmup_steps=10)
  np.testing.assert_allclose(make_schedule(config)(step - 1), expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("updates", "expected"),
  [(0, 0.01), (5, 0.165), (10, 0.32), (55, 0.165), (100, 0.01), (1000, 0.01)],  # p = 0, 1/2, 1, 1/2, 0, 0
)
def test_the_slanted_triangle_at_hand_computed_steps(updates, expected):
  """Howard and Ruder 2018, equation 3: up in a tenth of the steps, down in the others."""
  schedule = make_schedule(optimizer_config(schedule="slanted_triangular(total_steps=100)", learning_rate=0.32))
  assert float(schedule(updates)) == pytest.approx(expected, rel=1e-5)


def test_no_warmup():
  assert make_schedule(optimizer_config(schedule="cosine(decay_steps=1000)", warmup_steps=0))(0) == 1.0


def test_adam_first_step_is_the_learning_rate():
  # With the moments' bias corrected, the first step of Adam is lr * sign(gradient).
  optimizer = make_optimizer(optimizer_config(schedule="constant", warmup_steps=0, learning_rate=0.25))
  params = {"w": jnp.array([1.0, -2.0, 3.0])}
  updates, _ = optimizer.update({"w": jnp.array([4.0, -0.5, 8.0])}, optimizer.init(params), params)
  np.testing.assert_allclose(updates["w"], [-0.25, 0.25, -0.25], rtol=1e-6)


def test_clipping_scales_to_the_norm():
  # With a large eps Adam's first step depends on the gradient's size.
  params = {"w": jnp.zeros(2)}
  config = optimizer_config(name="adam(eps=1.0)", schedule="constant", warmup_steps=0, clip_norm=1.0)
  optimizer = make_optimizer(config)
  clipped, _ = optimizer.update({"w": jnp.array([30.0, 40.0])}, optimizer.init(params), params)
  unclipped, _ = optimizer.update({"w": jnp.array([0.6, 0.8])}, optimizer.init(params), params)
  np.testing.assert_allclose(clipped["w"], unclipped["w"], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd(momentum=0.5)", "adam", "adamw", "adafactor", "sm3"])
def test_optimizers_descend(name):
  optimizer = make_optimizer(
    optimizer_config(name=name, schedule="constant", warmup_steps=5, learning_rate=0.1)
  )
  params = {"w": jnp.array([[1.0, -2.0], [3.0, 0.5]])}

  @jax.jit
  def step(params, state):
    updates, state = optimizer.update(params, state, params)
    return jax.tree.map(jnp.add, params, updates), state

  state = optimizer.init(params)
  for _ in range(50):
    params, state = step(params, state)
  assert jnp.sum(params["w"] ** 2) < 14.25 / 2  # where it began


def test_weight_decay_spares_biases_and_scales():
  config = optimizer_config(name="adamw(weight_decay=0.5)", schedule="constant", warmup_steps=0, learning_rate=0.1)
  optimizer = make_optimizer(config)
  small = ("bias_F", "scale_D", "bias", "scale", "output_bias_V", "content_bias_NK", "filters_0_bias_F")
  params = {"a": {"kernel_DF": jnp.ones((2, 2))}, "b": {name: jnp.ones(2) for name in small}}
  updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
  np.testing.assert_allclose(updates["a"]["kernel_DF"], -0.05, rtol=1e-6)
  assert not any(update.any() for update in updates["b"].values())


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"schedule": "liner(decay_steps=3)"}, "no schedule 'liner' .did you mean 'linear'"),
    ({"schedule": "cosine"}, "cosine needs the option decay_steps"),
    ({"schedule": "cosine(decay_steps=0)"}, "decay_steps must be from 1"),
    ({"schedule": "cosine(decay_steps=3, end_factor=2)"}, "end_factor must be from 0.0 to 1.0"),
    ({"schedule": "cosine(3)"}, "not of the form"),
    ({"schedule": "slanted_triangular(total_steps=9, cut_fraction=1)"}, "cut_fraction must be from 1e-06"),
    ({"name": "lion"}, "no optimizer 'lion'; there are adafactor, adam"),
    ({"name": "adam(b3=0.5)"}, "adam has no option 'b3'"),
    ({"name": "adam(b1=1.0)"}, "b1 must be at least 0 and below 1"),
    ({"name": "adam(eps='x')"}, "must be float, not 'x'"),
    ({"name": "adamw(weight_decay=-1)"}, "weight_decay must be at least 0"),
    ({"name": "adam(eps=1e999)"}, "must be finite"),
  ],
)
def test_what_is_refused(changes, message):
  with pytest.raises(UserError, match=message):
    make_optimizer(optimizer_config(**changes))


def test_the_papers_schedule_is_for_the_models_width():
  optimizer = {"d_model": 32, "schedule": "inverse_sqrt"}
  config = ConfigDict({"model": {"d_model": 64}, "optimizer": optimizer})
  with pytest.raises(UserError, match="config.optimizer.d_model = 32, but config.model.d_model = 64"):
    check_width(config)
  config.optimizer.schedule = "cosine(decay_steps=3)"
  check_width(config)
  check_width(ConfigDict({"model": {}, "optimizer": optimizer}))
