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
python3 - <<'PYTHON' || { echo "put wheels of these, and of what they need, for this Python into $wheels" >&2; exit 2; }
import importlib.util, sys
needed = "ml_collections matplotlib sentencepiece grain babel num2words rich safetensors jax flax optax orbax".split()
missing = [name for name in needed if importlib.util.find_spec(name) is None]
print("missing: " + ", ".join(missing), file=sys.stderr) if missing else None
sys.exit(bool(missing))
PYTHON
exec python3 -m benchmarks.accelerator "$@"
