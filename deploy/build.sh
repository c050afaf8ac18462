#!/usr/bin/env bash
# Builds the program for machines that are older than this one, and prints where it is.
#
#   deploy/build.sh [PROFILE]      `release`, or `portable`: the same program, sooner built and less optimised
#
# zig links it against the symbols of glibc 2.17, so it starts wherever there is that or a later one, and never asks for
# clone3 by itself, which Docker before 20.10.10 refuses. It is built for this machine's processor: for others their
# standard library has to be there (`rustup target add`) and SCHEMABRIDGE_BUILD_TARGET has to name them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

profile="${1:-release}"
target="${SCHEMABRIDGE_BUILD_TARGET:-$(uname -m)-unknown-linux-gnu}"
glibc=2.17
cache="${XDG_CACHE_HOME:-${HOME:?}/.cache}"
tools="$cache/schemabridge-tools/zig"
wanted=(cargo-zigbuild==0.24.1 ziglang==0.17.1)

if [[ "$(cat "$tools/wanted" 2>/dev/null)" != "${wanted[*]}" ]]; then
    # Debian's own interpreter: its package of venv is for no other.
    /usr/bin/python3 -m venv --clear "$tools"
    "$tools/bin/pip" install --quiet "${wanted[@]}" >&2
    echo "${wanted[*]}" >"$tools/wanted"
fi

export CARGO_TARGET_DIR="$cache/schemabridge-portable-target"
export PATH="$tools/bin:$PATH"
cargo zigbuild --quiet --locked --bin schemabridge --profile "$profile" --target "$target.$glibc" >&2
echo "$CARGO_TARGET_DIR/$target/$profile/schemabridge"
