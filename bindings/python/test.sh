#!/usr/bin/env bash
# Builds the wheel, installs it into an empty environment, runs its tests there and checks its types.
#   bindings/python/test.sh [folder for the wheel and the environments; default: a temporary one, removed at the end]
# The wheel is left in FOLDER/wheels.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-$(mktemp -d)}
[ $# -gt 0 ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"
work=$(cd "$work" && pwd)
pip=(-m pip install --quiet --disable-pip-version-check)

python3 -m venv --clear "$work/build"
"$work/build/bin/python" "${pip[@]}" 'maturin>=1.9,<2' 'mypy>=1.18,<3' 'ruff>=0.14,<1'
rm -f "$work"/wheels/*.whl
(cd "$here" && "$work/build/bin/maturin" build --quiet --release --out "$work/wheels")
ls -l "$work"/wheels/*.whl

python3 -m venv --clear "$work/empty"
"$work/empty/bin/python" "${pip[@]}" "$work"/wheels/*.whl 'pytest>=8,<10' tqdm rich
# Outside of the source tree, so that only what the wheel holds can be imported.
(cd "$work" && "$work/empty/bin/python" -m pytest -q "$here/tests" -p no:cacheprovider -c "$here/pyproject.toml")

mypy() {
    "$work/build/bin/mypy" --strict --config-file "$here/pyproject.toml" --cache-dir "$work/mypy" \
        --python-executable "$work/empty/bin/python" "$@"
}
mypy "$here/python/peas"
# What a user's type checker sees: the installed package.
(cd "$work" && MYPYPATH="$here/tests" mypy "$here/tests")
# The stub says what the extension is.
"$work/build/bin/python" "${pip[@]}" "$work"/wheels/*.whl
(cd "$work" && "$work/build/bin/stubtest" peas)
examples=$here/../../examples
"$work/build/bin/ruff" check --no-cache --config "$here/pyproject.toml" "$here" "$examples"/*/
"$work/build/bin/ruff" format --no-cache --check --config "$here/pyproject.toml" "$here" "$examples"/*/
(cd "$examples/python" && mypy ./*.py)
for proof in postgres-replicas backup-fanout ansible-bootstrap; do
    (cd "$examples/$proof" && MYPYPATH=../python mypy ./*.py)
done
