"""A vector of a word's characters by a recurrent network; that of a CNN is tested with its model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_zoo.data import words
from attention_zoo.layers.characters import CharacterCNN, CharacterRNN, count_rnn
from tests.ops.against import assert_close


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_both_ends_are_read_to_the_end_of_the_word_alone(cell):
  layer = CharacterRNN(3, 4, cell)
  found_BTW = jnp.asarray(words.spelt(["bus", "tram", "a"], 9))[None]
  params = layer.init(jax.random.key(0), found_BTW)["params"]
  assert sum(x.size for x in jax.tree.leaves(params)) == count_rnn(3, 4, cell)
  y_BTU = layer.apply({"params": params}, found_BTW)
  assert y_BTU.shape == (1, 3, 8)
  short = layer.apply({"params": params}, jnp.asarray(words.spelt(["bus"], 5))[None])  # no room behind it
  assert_close(y_BTU[:, :1], np.asarray(short), 1e-6)
  assert not layer.apply({"params": params}, jnp.zeros((1, 1, 9), int)).any()  # no word
  # Backward is forward of the word in reverse, by the other parameters.
  swapped = params | {"forward": params["backward"], "backward": params["forward"]}
  turned_BTW = found_BTW[:, :1, :5][:, :, ::-1]
  assert_close(y_BTU[:, :1, 4:], np.asarray(layer.apply({"params": swapped}, turned_BTW))[:, :, :4], 1e-6)


def test_a_filter_wider_than_the_word_is_told():
  with pytest.raises(ValueError, match="words of 3 characters are shorter than the widest filter, 4"):
    CharacterCNN(2, ((4, 1),)).init(jax.random.key(0), jnp.ones((1, 1, 3), int))
