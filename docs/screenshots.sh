#!/usr/bin/env bash
# Takes the pictures of the operator's page that the README shows: a gateway with a day's traffic, in headless Chromium.
#
#   docs/screenshots.sh
#
# Needs what tests/run.sh installs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mkdir -p docs/images
SCREENSHOTS="$PWD/docs/images" cargo test --locked --test real -- page::it_can_be_read_dark_and_light
rm -f docs/images/page-phone-dark.png
ls -l docs/images
