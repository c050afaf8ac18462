#!/usr/bin/env bash
# Alerts and dashboard: well formed, fired when they should be, and about series that there are.
#
#   tests/alerts.sh
#
# Needs Prometheus, and what tests/python_tools.sh installs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

"${XDG_CACHE_HOME:-${HOME:?}/.cache}/schemabridge-tools/python/bin/yamllint" --strict --config-file tests/helm/yamllint.yaml deploy/prometheus
promtool check rules deploy/prometheus/alerts.yml
promtool test rules tests/alerts.yml
diff <(python3 -B deploy/grafana/dashboard.py) deploy/grafana/schemabridge.json

cargo build --locked --quiet --bin schemabridge
gateway="$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug/schemabridge"
"${XDG_CACHE_HOME:-${HOME:?}/.cache}/schemabridge-tools/python/bin/python" -B tests/expressions.py "$gateway"
