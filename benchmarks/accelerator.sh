#!/usr/bin/env bash
# `python -m benchmarks.accelerator` on a machine without network: its Python has JAX with its plugin, Flax, Optax, Orbax
# and, for the peers, PyTorch and Transformers; what else is needed lies as wheels in a folder ($WHEELS, by default .whl).
# Usage, in the repository's root: benchmarks/accelerator.sh [options of benchmarks.accelerator]
set -eu
wheels=${WHEELS:-.whl}
if ls "$wheels"/*.whl >/dev/null 2>&1; then
  site=${SITE:-$HOME/site}
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$wheels"/*.whl
  export PYTHONPATH="$site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
else
  export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
fi
exec python3 -m benchmarks.accelerator "$@"
