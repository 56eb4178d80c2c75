"""Two-operand einsum that multiplies in a chosen type, sums in float32, and differentiates the same way."""

import functools

import jax
import jax.numpy as jnp

from attention_zoo import hardware


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def einsum(subscripts, x, y, out_dtype=None, in_dtype=None):
  """`jnp.einsum(subscripts, x, y)` of operands rounded to in_dtype, float32 sums, one rounding to out_dtype.

  Both types are x's by default. Every letter must stand in two of the three terms. In the backward pass the
  cotangent is rounded to in_dtype too, so that no product is ever taken in a wider type than asked for; the
  gradients of x and y have their own types and come straight from the float32 sums (a bfloat16 model gets
  float32 gradients of its float32 parameters). float32 operands with in_dtype bfloat16 is what TPUs do by
  default. In plain JAX the transpose of a bfloat16 product with float32 result is a float32 product: three
  times slower on CPUs and GPUs with bfloat16 units.
  """
  return _product(subscripts, x, y, out_dtype or x.dtype, in_dtype or x.dtype)


def _product(subscripts, x, y, out_dtype, in_dtype):
  xs, ys, outs = subscripts.replace(",", "->").split("->")
  if hardware.platform() == "cpu" and set(xs) & set(ys) & set(outs):
    in_dtype = jnp.float32  # XLA's CPU backend has no batched bfloat16 product with a float32 result.
  x, y = x.astype(in_dtype), y.astype(in_dtype)
  return jnp.einsum(subscripts, x, y, preferred_element_type=jnp.float32).astype(out_dtype)


def _forward(subscripts, x, y, out_dtype, in_dtype):
  return einsum(subscripts, x, y, out_dtype, in_dtype), (x, y)


def _backward(subscripts, out_dtype, in_dtype, operands, cotangent):
  x, y = operands
  in_dtype = in_dtype or x.dtype
  xs, ys, outs = subscripts.replace(",", "->").split("->")
  return (
    _fit(_product(f"{outs},{ys}->{xs}", cotangent, y, x.dtype, in_dtype), x),
    _fit(_product(f"{xs},{outs}->{ys}", x, cotangent, y.dtype, in_dtype), y),
  )


def _fit(gradient, operand):
  """Sums over the dimensions of length 1 that the product has stretched."""
  stretched = [i for i, (g, n) in enumerate(zip(gradient.shape, operand.shape, strict=True)) if g != n]
  return gradient.sum(stretched, keepdims=True) if stretched else gradient


einsum.defvjp(_forward, _backward)
