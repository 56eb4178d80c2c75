"""Parameters rounded once, for functions that are called many times with the same ones."""

import jax
from jax.extend import core


def rounded(function, params, *arguments):
  """params, each leaf in the type that `function(params, *arguments)` converts it to if it does nothing else with it.

  A step of decoding takes kernels rounded to the type of its products; without this it would convert all of them anew
  at every position. What leaves are meant is read from the traced function: no names, and a leaf that is used in
  float32 as well stays float32. Cost: one trace of the function.
  """
  leaves, tree = jax.tree.flatten(params)
  traced = jax.make_jaxpr(lambda leaves, *arguments: function(tree.unflatten(leaves), *arguments))(leaves, *arguments)

  def convert(leaf, variable):
    uses = _uses(traced.jaxpr, variable)
    narrower = len(uses) == 1 and None not in uses and next(iter(uses)).itemsize < leaf.dtype.itemsize
    return leaf.astype(next(iter(uses))) if narrower else leaf

  return tree.unflatten(map(convert, leaves, traced.jaxpr.invars))


def _uses(jaxpr, variable) -> set:
  """The types that a variable is converted to; None stands for any other use."""
  uses = {None} if any(out is variable for out in jaxpr.outvars) else set()
  for eqn in jaxpr.eqns:
    for i, operand in enumerate(eqn.invars):
      if operand is not variable:
        continue
      inner = list(core.jaxprs_in_params(eqn.params))
      if eqn.primitive.name == "convert_element_type":
        uses.add(eqn.params["new_dtype"])
      elif len(inner) == 1 and len(inner[0].invars) == len(eqn.invars) and eqn.primitive.name not in ("scan", "while"):
        uses |= _uses(inner[0], inner[0].invars[i])  # a call: jit, custom_vjp, remat
      else:
        uses.add(None)
  return uses
