#!/bin/sh
# Installs the built library, the headers and the pkg-config file below PREFIX.
#   cargo build --release -p peas-ffi && peas-ffi/install.sh /usr/local [FOLDER OF THE BUILT LIBRARY]
# Packagers may prefer `cargo cinstall -p peas-ffi`, which does the same.
set -eu
prefix=${1:?usage: install.sh PREFIX [FOLDER OF THE BUILT LIBRARY]}
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
built=${2:-$root/target/release}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)

mkdir -p "$prefix/include" "$prefix/lib/pkgconfig"
cp "$root/include/peas.h" "$root/include/peas.hpp" "$prefix/include/"
cp "$built/libpeas.so" "$prefix/lib/libpeas.so.$version"
cp "$built/libpeas.a" "$prefix/lib/"
ln -sf "libpeas.so.$version" "$prefix/lib/libpeas.so.0"
ln -sf libpeas.so.0 "$prefix/lib/libpeas.so"
sed -e "s|@prefix@|$prefix|" -e "s|@version@|$version|" "$root/peas-ffi/peas.pc.in" > "$prefix/lib/pkgconfig/peas.pc"
