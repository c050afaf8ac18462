#!/usr/bin/env bash
# The one test command: installs what the tests need, then runs the hermetic tests and those against real programs.
#
#   tests/run.sh
#
# Needs cargo; as root on Debian it installs the rest by itself. Tools written in Go are built where there is a `go`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

section() { printf '\n==> %s (%s)\n' "$1" "$(date -u +%T)"; }

if ! command -v cargo >/dev/null; then
    echo "cargo is not installed: see https://rustup.rs" >&2
    exit 1
fi

section 'Go tools: building in the background'
log="$(mktemp)"
nice -n 10 tests/tools.sh >"$log" 2>&1 &
tools=$!
trap '[[ -z "$tools" ]] || kill "$tools" || true; rm -f "$log"' EXIT

section 'Debian packages'
tests/packages.sh build-essential curl openssl nghttp2-client docker-registry skopeo zstd podman buildah containerd docker.io python3-venv \
    exfat-fuse exfatprogs squid bsdutils systemd prometheus chromium binutils debootstrap docker-compose haproxy lintian nginx \
    procps strace
# A node of another origin brings its own npm, which Debian's would be at odds with.
command -v npm >/dev/null || tests/packages.sh nodejs npm

section 'Tools from PyPI'
tests/python_tools.sh

section 'Servers of buckets'
tests/buckets.sh

section 'Hermetic tests: an upstream in the test process'
cargo test --locked

section 'Traces: a build with the feature, and a collector in the test process'
cargo test --locked --features otel --test traces

section 'Go tools: waiting for them'
if ! wait "$tools"; then
    tools=
    cat "$log" >&2
    exit 1
fi
tools=
grep -v '^go: downloading' "$log"

section 'The chart'
tests/helm.sh

section 'Alerts and dashboard'
tests/alerts.sh

if ((EUID != 0)); then
    echo "dockerd, containerd, podman and buildah can be started by root only: run this as root" >&2
    exit 1
fi

section 'What is deployed: built for older machines, packaged, and read by what reads it'
portable="$(deploy/build.sh portable)"
debian_11="$(deploy/bullseye.sh)"
tests/deploy.sh "$portable" "$debian_11"
tests/image.sh "$portable" "$debian_11"
tests/samples.sh "$portable"

section 'Real tests: real registries and real clients'
cargo test --locked --test real
