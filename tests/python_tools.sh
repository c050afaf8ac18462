#!/usr/bin/env bash
# Installs the test tools that come from PyPI, at fixed versions, into a folder outside the checkout. Nothing is done where
# they are there already.
set -euo pipefail

tools="${XDG_CACHE_HOME:-${HOME:?}/.cache}/schemabridge-tools/python"
wanted=(kubernetes-validate==1.37.0 yamllint==1.38.0)

if [[ "$(cat "$tools/wanted" 2>/dev/null)" == "${wanted[*]}" ]]; then
    echo "${wanted[*]}: all there"
    exit 0
fi
started=$SECONDS
# Debian's own interpreter: its package of venv is for no other.
/usr/bin/python3 -m venv --clear "$tools"
"$tools/bin/pip" install --quiet "${wanted[@]}"
echo "${wanted[*]}" >"$tools/wanted"
echo "${wanted[*]}: installed in $((SECONDS - started)) s"
