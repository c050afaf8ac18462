#!/usr/bin/env bash
# Installs the Debian packages that are named and not there yet. No daemon of theirs is started.
set -euo pipefail

missing=()
for package in "$@"; do
    [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
    echo "all Debian packages are there: $*"
    exit 0
fi
if ((EUID != 0)); then
    echo "these Debian packages are missing, and only root can install them: ${missing[*]}" >&2
    exit 1
fi

# Packages of daemons start them unless this program forbids it.
policy=/usr/sbin/policy-rc.d
if [[ ! -e "$policy" ]]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet --quiet
apt-get install --quiet --quiet --yes --no-install-recommends "${missing[@]}" </dev/null >/dev/null
