#!/usr/bin/env bash
# Makes a root of Debian 11, whose glibc 2.31 needs no clone3, in a folder outside the checkout, and prints where it is.
# Nothing is done where it is there already.
set -euo pipefail

root="${XDG_CACHE_HOME:-${HOME:?}/.cache}/schemabridge-tools/bullseye"

if [[ ! -e "$root.complete" ]]; then
    rm -rf "$root"
    mkdir -p "$(dirname "$root")"
    debootstrap --variant=minbase --include=ca-certificates bullseye "$root" >&2
    touch "$root.complete"
fi
echo "$root"
