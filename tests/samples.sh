#!/usr/bin/env bash
# Holds the samples in deploy/ to the programs that read them: Kubernetes manifests, client configurations, proxies in front.
#
#   tests/samples.sh BINARY
#
# Needs what tests/python_tools.sh installs, and where there is a `go`, what tests/tools.sh builds.
set -euo pipefail
if (($# != 1)); then
    echo "usage: tests/samples.sh BINARY" >&2
    exit 1
fi
binary="$(realpath "$1")"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
tools="${XDG_CACHE_HOME:-${HOME:?}/.cache}/schemabridge-tools"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

section() { printf '\n-- %s\n' "$1"; }

section 'Kubernetes'
for layer in base mirror; do
    "$tools/bin/kustomize" build "deploy/kubernetes/$layer" >"$work/$layer.yaml"
done
manifests=("$work/base.yaml" "$work/mirror.yaml" deploy/kubernetes/sidecar.yaml deploy/kubernetes/daemonset.yaml)
for version in 1.31 1.37; do
    for manifest in "${manifests[@]}"; do
        "$tools/python/bin/kubernetes-validate" --strict --quiet --kubernetes-version "$version" "$manifest"
    done
done
"$tools/python/bin/python" -B tests/deploy/manifests.py "$binary" deploy/kubernetes/mirror "${manifests[@]}"
echo "${#manifests[@]} manifests, for Kubernetes 1.31 and 1.37"

section 'Clients'
mkdir -p "$work/machine"/etc/{containerd,docker,containers,rancher/k3s}
gateway=(--gateway http://127.0.0.1:5000 --upstream docker.io)
"$binary" client-config docker "${gateway[@]}" --write --root "$work/machine" >/dev/null
for tool in containerd podman k3s; do
    "$binary" client-config "$tool" "${gateway[@]}" --upstream registry.example=corp --write --root "$work/machine" >/dev/null
done
same() { # sample, what the program writes
    diff --recursive --exclude='*.schemabridge-written' "deploy/clients/$1" "$work/machine/etc/$2"
}
same containerd containerd/certs.d
same docker docker
same containers containers
same k3s rancher/k3s
echo 'as schemabridge client-config writes them'

section 'Proxies in front'
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=registry.example -days 1 \
    -keyout "$work/tls.key" -out "$work/tls.crt" 2>/dev/null
cat "$work/tls.crt" "$work/tls.key" >"$work/tls.pem"
sed "s#/etc/nginx/tls#$work#" deploy/nginx.conf >"$work/nginx.conf"
nginx -t -q -p "$work" -e "$work/errors" -g "pid $work/nginx.pid; error_log $work/errors;" -c "$work/nginx.conf" || {
    cat "$work/errors" >&2
    exit 1
}
sed "s#/etc/haproxy/tls.pem#$work/tls.pem#" deploy/haproxy.cfg >"$work/haproxy.cfg"
haproxy -c -q -f "$work/haproxy.cfg"
echo 'nginx and HAProxy read theirs'
