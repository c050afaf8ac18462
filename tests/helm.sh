#!/usr/bin/env bash
# The chart: linted, rendered for every home, validated for several versions of Kubernetes, and looked into.
#
#   tests/helm.sh
#
# Needs what tests/tools.sh and tests/python_tools.sh install, and a built gateway, which judges the configuration files
# that the chart writes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools="${XDG_CACHE_HOME:-${HOME:?}/.cache}/schemabridge-tools"
export HELM="$tools/bin/helm" PATH="$tools/python/bin:$PATH"
if [[ ! -x "$HELM" ]]; then
    echo "helm is not there: tests/tools.sh builds it, where there is a go" >&2
    exit 1
fi
cargo build --locked --quiet --bin schemabridge
GATEWAY="$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug/schemabridge"
export GATEWAY
# Nothing of the operator's own.
HELM_CONFIG_HOME="$(mktemp -d)"
export HELM_CONFIG_HOME HELM_CACHE_HOME="$HELM_CONFIG_HOME" HELM_DATA_HOME="$HELM_CONFIG_HOME"
trap 'rm -rf "$HELM_CONFIG_HOME"' EXIT

chart=helm/schemabridge
yamllint --strict --config-file tests/helm/yamllint.yaml "$chart/Chart.yaml" "$chart/values.yaml" "$chart/ci"
for values in "$chart"/ci/*-values.yaml; do
    "$HELM" lint --strict --quiet --kube-version 1.31 "$chart" --values "$values"
done
# What is in the package is what is in the folder.
"$HELM" package "$chart" --destination "$HELM_CONFIG_HOME" >/dev/null
for values in "$chart"/ci/*-values.yaml; do
    diff <("$HELM" template gateway "$chart" --kube-version 1.31 --values "$values") \
        <("$HELM" template gateway "$HELM_CONFIG_HOME"/schemabridge-*.tgz --kube-version 1.31 --values "$values")
done
"$tools/python/bin/python" -B -m unittest discover --start-directory tests/helm --pattern '*.py'
