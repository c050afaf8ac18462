#!/bin/sh
# The figures: the gateway beside nginx and docker-registry 2.8, all started here, all in one run.
#   benches/run.sh [--rounds N] [--seconds N] [--recipes N] [--only NAME]... [--json FILE]
# Not a test: it prints ratios and always ends well when it could measure. On a machine that does other work the rates
# mean little; the ratios of neighbouring measurements still do.
set -eu
cd "$(dirname "$0")/.."

missing=""
for pair in nginx:nginx-light openssl:openssl docker-registry:docker-registry wrk:wrk curl:curl python3:python3 zstd:zstd; do
    command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ]; then
    echo "installing:$missing" >&2
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $missing >&2
fi

# Apart from the benches: the test dependencies would switch on features that the product does not have.
cargo build --release --bin schemabridge
exec env PYTHONDONTWRITEBYTECODE=1 python3 benches/figures.py "$@"
