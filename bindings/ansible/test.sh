#!/usr/bin/env bash
# Tests the collection with real ansible-core: documentation, ansible-test sanity, and what the modules promise.
#   bindings/ansible/test.sh [WHEEL]     WHEEL: of ../python/test.sh; built here without it
# SANITY=no leaves ansible-test out (it takes some minutes).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip=(-m pip install --quiet --disable-pip-version-check)
wheel=${1:+$(realpath "$1")}
if [ -z "$wheel" ]; then
    python3 -m venv "$work/build"
    "$work/build/bin/python" "${pip[@]}" 'maturin>=1.9,<2'
    (cd "$here/../python" && "$work/build/bin/maturin" build --quiet --release --out "$work/wheels")
    wheel=$(echo "$work"/wheels/*.whl)
fi
python3 -m venv "$work/venv"
"$work/venv/bin/python" "${pip[@]}" "$wheel" 'ansible-core==2.19.*'
export PATH="$work/venv/bin:$PATH" HOME="$work/home" LC_ALL=C.UTF-8 ANSIBLE_LOCALHOST_WARNING=False
export ANSIBLE_COLLECTIONS_PATH="$work" ANSIBLE_LOCAL_TEMP="$work/tmp" ANSIBLE_NOCOLOR=1
mkdir "$HOME"
# A copy: ansible-test leaves its output in the collection.
cp -r "$here/ansible_collections" "$work/"

for module in peas_create peas_seed peas_install; do
    ansible-doc --json "peas.peas.$module" >"$work/doc.json"
    # Every option and every returned value is described.
    python - "$work/doc.json" <<'PY'
import json, sys
((name, page),) = json.load(open(sys.argv[1])).items()
doc = page["doc"]
assert page["examples"].strip() and doc["short_description"] and doc["author"] and doc["attributes"], name
fields = {**doc["options"], **page["return"]}
assert all(field.get("description") and field.get("type") for field in fields.values()), fields
print(f"{name}: {len(doc['options'])} options, {len(page['return'])} values")
PY
done

if [ "${SANITY:-yes}" = yes ]; then
    # ansible-test brings pip into its own environments with a script from its makers' server; the interpreter's own pip does, too.
    mkdir -p "$HOME/.ansible/test/cache"
    for version in 24.2 25.2 25.3; do
        echo 'import ensurepip; ensurepip.bootstrap()' >"$HOME/.ansible/test/cache/get_pip_${version/./_}.py"
    done
    version=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    (cd "$work/ansible_collections/peas/peas" && ansible-test sanity --color no --venv --requirements --python "$version") \
        >"$work/sanity" 2>&1 || {
        cat "$work/sanity"
        exit 1
    }
    echo "ansible-test sanity: $(grep -c '^Running sanity test' "$work/sanity") tests clean"
fi

python - "$work/source" <<'PY'
import pathlib, random, sys
root, chance = pathlib.Path(sys.argv[1]), random.Random(5)
(root / "folder").mkdir(parents=True)
(root / "folder/one.bin").write_bytes(chance.randbytes(5_000_000))
(root / "folder/two.bin").write_bytes(chance.randbytes(200_000))
(root / "run.sh").write_text("#!/bin/sh\n")
(root / "run.sh").chmod(0o755)
PY
# Free ports below those that the system gives to everybody who asks for any: nobody takes them before they are used.
read -r port web_port < <(python - <<'PY'
import errno, random, socket
sockets = []
while len(sockets) < 2:
    try:
        sockets.append(socket.create_server(("127.0.0.1", random.randrange(10_000, 30_000))))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
print(*(socket.getsockname()[1] for socket in sockets))
PY
)
ansible-playbook -i localhost, -e "work=$work port=$port web_port=$web_port" -e "ansible_python_interpreter=$work/venv/bin/python" \
    "$here/tests/modules.yml" >"$work/log" 2>&1 || {
    cat "$work/log"
    exit 1
}
tail -3 "$work/log"
