#!/usr/bin/env bash
# Installs the servers of buckets that tests keep stores in, at fixed versions, into a folder outside the checkout: moto,
# which speaks as S3 does, and Azurite, which speaks as Azure does. Nothing is done where they are there already.
set -euo pipefail

tools="${XDG_CACHE_HOME:-${HOME:?}/.cache}/schemabridge-tools"

moto=5.2.5
if compgen -G "$tools/moto/lib/python3*/site-packages/moto-$moto.dist-info" >/dev/null; then
    echo "moto $moto is there"
else
    started=$SECONDS
    # Debian's own interpreter: its package of venv is for no other.
    /usr/bin/python3 -m venv --clear "$tools/moto"
    "$tools/moto/bin/pip" install --quiet "moto[server,s3]==$moto"
    echo "moto $moto installed in $((SECONDS - started)) s"
fi

azurite=3.35.0
if [[ "$(cat "$tools/azurite/node_modules/azurite/package.json" 2>/dev/null)" == *"\"version\": \"$azurite\""* ]]; then
    echo "azurite $azurite is there"
else
    started=$SECONDS
    npm install --silent --no-audit --no-fund --prefix "$tools/azurite" "azurite@$azurite"
    echo "azurite $azurite installed in $((SECONDS - started)) s"
fi
