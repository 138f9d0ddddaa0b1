#!/usr/bin/env bash
# Builds the wheel, installs it into an empty environment, runs its tests there and checks its types.
#   bindings/python/test.sh [folder for the wheel and the environment; default: a temporary one, removed at the end]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-$(mktemp -d)}
[ $# -gt 0 ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"

python3 -m venv "$work/build"
"$work/build/bin/pip" install --quiet --disable-pip-version-check 'maturin>=1.9,<2' 'mypy>=1.18,<3'
rm -f "$work"/wheels/*.whl
(cd "$here" && "$work/build/bin/maturin" build --quiet --release --out "$work/wheels")
ls -l "$work"/wheels/*.whl

python3 -m venv --clear "$work/empty"
"$work/empty/bin/pip" install --quiet --disable-pip-version-check "$work"/wheels/*.whl 'pytest>=8,<10'
# Outside of the source tree, so that only what the wheel holds can be imported.
(cd "$work" && "$work/empty/bin/python" -m pytest -q "$here/tests" -p no:cacheprovider -c "$here/pyproject.toml")

"$work/build/bin/mypy" --strict --config-file "$here/pyproject.toml" --cache-dir "$work/mypy" \
    --python-executable "$work/empty/bin/python" "$here/python/peas"
# What a user's type checker sees: the installed package.
(cd "$work" && MYPYPATH="$here/tests" "$work/build/bin/mypy" --strict --config-file "$here/pyproject.toml" \
    --cache-dir "$work/mypy" --python-executable "$work/empty/bin/python" "$here/tests")
