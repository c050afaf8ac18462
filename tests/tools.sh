#!/usr/bin/env bash
# Builds the test tools that are written in Go, at fixed versions, into a folder outside the checkout. Nothing is done
# where they are there already, and where there is no `go` they are left out.
set -euo pipefail

bin="${XDG_CACHE_HOME:-${HOME:?}/.cache}/schemabridge-tools/bin"

tool() { # name, package, version
    if [[ "$(go version -m "$bin/$1" 2>/dev/null)" == *"$3"* ]]; then
        echo "$1 $3 is there"
        return
    fi
    local started=$SECONDS
    GOBIN="$bin" CGO_ENABLED=0 go install -trimpath -ldflags='-s -w' "$2@$3"
    echo "$1 $3 built in $((SECONDS - started)) s"
}

if ! command -v go >/dev/null; then
    echo "LEFT OUT: there is no go here, so distribution 3, crane, oras and regctl are not tested with, nor is the chart rendered"
    exit 0
fi
mkdir -p "$bin"
tool registry github.com/distribution/distribution/v3/cmd/registry v3.1.2
tool crane github.com/google/go-containerregistry/cmd/crane v0.22.1
tool oras oras.land/oras/cmd/oras v1.3.6
tool regctl github.com/regclient/regclient/cmd/regctl v0.11.7
tool helm helm.sh/helm/v3/cmd/helm v3.22.0
tool kustomize sigs.k8s.io/kustomize/kustomize/v5 v5.7.1
