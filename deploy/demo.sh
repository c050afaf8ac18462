#!/usr/bin/env bash
# Shows the gateway at work on this machine: one OCI image in a real registry, pulled as Docker 1.9 would and as a modern client.
#
#   deploy/demo.sh
#
# Needs cargo; as root on Debian it installs a registry, skopeo and curl by itself. Everything it starts listens on loopback
# and is stopped at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

repository=demo/hello
tag=v1
work="$(mktemp -d)"
started=()

# Ends what was started here, by process id, whichever way the script ends.
stop() {
    local status=$?
    for process in "${started[@]}"; do
        kill "$process" 2>/dev/null && wait "$process" 2>/dev/null || true
    done
    rm -rf "$work"
    exit "$status"
}
trap stop EXIT

section() { printf '\n== %s\n' "$1"; }

free_port() { # a port that refuses connections
    local port
    while :; do
        port=$((18000 + RANDOM % 14000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

start() { # name, port, command...: in the background, until it listens
    local name="$1" port="$2" process
    shift 2
    "$@" >"$work/$name.log" 2>&1 &
    process=$!
    started+=("$process")
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        if ! kill -0 "$process" 2>/dev/null; then
            echo "$name ended before it listened:" >&2
            tail -n 5 "$work/$name.log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

digest_of() { sha256sum "$1" | cut -d ' ' -f 1; }

blob() { # file: moves it to its place in the layout, prints digest and size
    local digest
    digest="$(digest_of "$1")"
    printf '%s %s\n' "$digest" "$(stat -c %s "$1")"
    mv "$1" "$work/layout/blobs/sha256/$digest"
}

# An OCI image layout of one layer with one file.
make_layout() {
    local layer_digest layer_size config_digest config_size manifest_digest manifest_size diff_id
    local kind=application/vnd.oci.image
    mkdir -p "$work/layout/blobs/sha256" "$work/files"
    echo 'hello from an OCI image' >"$work/files/hello.txt"
    tar --create --file "$work/layer.tar" --directory "$work/files" --owner 0 --group 0 --mtime @0 hello.txt
    diff_id="$(digest_of "$work/layer.tar")"
    gzip --no-name "$work/layer.tar"
    read -r layer_digest layer_size < <(blob "$work/layer.tar.gz")
    cat >"$work/config" <<JSON
{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05Z","config":{"Cmd":["/hello"]},"rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]},"history":[{"created":"2024-01-02T03:04:05Z","created_by":"COPY hello.txt /"},{"created":"2024-01-02T03:04:05Z","created_by":"CMD [\"/hello\"]","empty_layer":true}]}
JSON
    read -r config_digest config_size < <(blob "$work/config")
    cat >"$work/manifest" <<JSON
{"schemaVersion":2,"mediaType":"$kind.manifest.v1+json","config":{"mediaType":"$kind.config.v1+json","digest":"sha256:$config_digest","size":$config_size},"layers":[{"mediaType":"$kind.layer.v1.tar+gzip","digest":"sha256:$layer_digest","size":$layer_size}]}
JSON
    read -r manifest_digest manifest_size < <(blob "$work/manifest")
    echo '{"imageLayoutVersion":"1.0.0"}' >"$work/layout/oci-layout"
    cat >"$work/layout/index.json" <<JSON
{"schemaVersion":2,"manifests":[{"mediaType":"$kind.manifest.v1+json","digest":"sha256:$manifest_digest","size":$manifest_size,"annotations":{"org.opencontainers.image.ref.name":"$tag"}}]}
JSON
    echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$work/policy.json"
}

skopeo_copy() { skopeo --policy "$work/policy.json" copy --quiet "$@"; }

show() { # folded, indented, at most 24 lines
    { cat "$1" && echo; } | fold -w 116 | sed '/^$/d; s/^/    /' >"$work/shown"
    head -n 24 "$work/shown"
    if (($(wc -l <"$work/shown") > 24)); then echo '    ...'; fi
}

section 'What this needs'
tests/packages.sh build-essential ca-certificates curl docker-registry skopeo

section 'Building the gateway'
cargo build --locked --quiet
gateway="$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug/schemabridge"
"$gateway" version

section 'A registry, and an OCI image in it'
registry_port="$(free_port)"
cat >"$work/registry.yml" <<YAML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: '127.0.0.1:$registry_port'}
YAML
start registry "$registry_port" docker-registry serve "$work/registry.yml"
make_layout
skopeo_copy --dest-tls-verify=false --preserve-digests "oci:$work/layout:$tag" "docker://127.0.0.1:$registry_port/$repository:$tag"
echo "docker-registry on 127.0.0.1:$registry_port stores $repository:$tag as"
curl --silent --fail --header 'Accept: application/vnd.oci.image.manifest.v1+json' \
    "http://127.0.0.1:$registry_port/v2/$repository/manifests/$tag" >"$work/stored.json"
show "$work/stored.json"

docker_1_9='docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/3.16.0 os/linux arch/amd64'
section 'Docker 1.9 without the gateway'
curl --silent --header 'Accept:' --user-agent "$docker_1_9" --output "$work/refusal.json" --write-out '    HTTP %{http_code}\n' \
    "http://127.0.0.1:$registry_port/v2/$repository/manifests/$tag"
show "$work/refusal.json"

section 'The gateway in front of it'
gateway_port="$(free_port)"
admin_port="$(free_port)"
start schemabridge "$gateway_port" "$gateway" serve --upstream "http://127.0.0.1:$registry_port" \
    --listen "127.0.0.1:$gateway_port" --admin-listen "127.0.0.1:$admin_port" --store memory:
echo "schemabridge serve --upstream http://127.0.0.1:$registry_port --listen 127.0.0.1:$gateway_port"
image="http://127.0.0.1:$gateway_port/v2/$repository"

section 'Docker 1.9 through the gateway'
as_docker_1_9() { curl --silent --fail --header 'Accept:' --user-agent "$docker_1_9" "$@"; }
as_docker_1_9 --dump-header "$work/headers" --output "$work/schema1.json" "$image/manifests/$tag"
grep -i -E '^(HTTP|content-type|docker-content-digest|schemabridge-)' "$work/headers" | tr -d '\r' | sed 's/^/    /'
show "$work/schema1.json"
echo 'and every layer it names, each compared with its digest:'
grep -o '"blobSum": "sha256:[0-9a-f]*"' "$work/schema1.json" | grep -o 'sha256:[0-9a-f]*' | sort -u | while read -r layer; do
    as_docker_1_9 --output "$work/blob" "$image/blobs/$layer"
    [[ "sha256:$(digest_of "$work/blob")" == "$layer" ]]
    text="$(gzip --decompress --stdout "$work/blob" | tar --extract --to-stdout 2>/dev/null | head -n 1)"
    echo "    $layer, $(stat -c %s "$work/blob") bytes: ${text:-no change, which the registry does not even have}"
done

section 'A modern client through the gateway'
skopeo_copy --src-tls-verify=false --preserve-digests "docker://127.0.0.1:$gateway_port/$repository:$tag" "dir:$work/modern"
cmp "$work/stored.json" "$work/modern/manifest.json"
echo "    skopeo got what is stored, byte for byte: sha256:$(digest_of "$work/modern/manifest.json")"
