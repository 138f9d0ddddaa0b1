#!/usr/bin/env bash
# Runs the proofs with everything that they need: programs from Debian, ansible-core from PyPI, the wheel from this repository.
#   examples/prove.sh [postgres|fanout|ansible]... [--full]      as root; all three without a name
# PEAS_WHEEL: a wheel of bindings/python/test.sh; built here without it. The small forms take about a minute each, and fail when a
# fact is not as it should be; the full forms are measurements for a machine that does nothing else.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# In namespaces of its own: however this ends, its servers, their shared memory and the network that it builds end with it.
if [ "${1:-}" != --inside ]; then
    exec unshare --mount --ipc --pid --fork --kill-child --mount-proc bash "$here/prove.sh" --inside "$@"
fi
shift
mkdir -p /run/netns
for place in /dev/shm /run/netns; do mount -t tmpfs tmpfs "$place"; done

full=()
proofs=()
for word in "$@"; do
    case "$word" in
    --full) full=(--full) ;;
    *) proofs+=("$word") ;;
    esac
done
[ ${#proofs[@]} -gt 0 ] || proofs=(postgres fanout ansible)

missing=()
needs() { [ -e "$1" ] || missing+=("$2"); }
needs /usr/bin/python3 python3
[ -e /usr/bin/python3 ] && /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
needs /usr/bin/setpriv util-linux
command -v ip >/dev/null || [ -x /sbin/ip ] || missing+=(iproute2)
for proof in "${proofs[@]}"; do
    case "$proof" in
    postgres) needs /usr/lib/postgresql/15/bin/postgres postgresql-15 ;;
    fanout) needs /usr/bin/rsync rsync && needs /usr/bin/b3sum b3sum ;;
    ansible) needs /usr/sbin/sshd openssh-server && needs /usr/bin/ssh openssh-client && needs /usr/bin/b3sum b3sum ;;
    *)
        echo "no such proof: $proof"
        exit 2
        ;;
    esac
done
if [ ${#missing[@]} -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # Servers are started by the proofs, on hosts of their own; Debian would start one of each here.
    RUNLEVEL=1 apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

# Where the user postgres can read it: a checkout may lie in somebody's home.
work=$(mktemp -d -p /var/tmp peas-prove-XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cp -r "$here" "$work/examples"
mkdir "$work/bindings"
cp -r "$here/../bindings/ansible" "$work/bindings/"
/usr/bin/python3 -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check)
wheel=${PEAS_WHEEL:+$(realpath "$PEAS_WHEEL")}
if [ -z "$wheel" ]; then
    "${pip[@]}" 'maturin>=1.9,<2'
    (cd "$here/../bindings/python" && "$work/venv/bin/maturin" build --quiet --release --out "$work/wheels")
    wheel=$(echo "$work"/wheels/*.whl)
fi
"${pip[@]}" "$wheel" 'ansible-core==2.19.*'
chmod -R a+rX "$work"
export PATH="$work/venv/bin:$PATH:/usr/sbin:/sbin"

for proof in "${proofs[@]}"; do
    case "$proof" in
    postgres) (cd "$work/examples/postgres-replicas" && python prove.py --svg "$work/replicas.svg" "${full[@]}") ;;
    fanout) (cd "$work/examples/backup-fanout" && python prove.py "${full[@]}") ;;
    ansible) (cd "$work/examples/ansible-bootstrap" && python prove.py "${full[@]}") ;;
    esac
done
