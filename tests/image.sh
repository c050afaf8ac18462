#!/usr/bin/env bash
# Holds the portable program to the oldest C library, and the image to what loads and builds it.
#
#   tests/image.sh BINARY ROOT
#
# BINARY is the portable one. ROOT is a Debian 11 file system of debootstrap's.
set -euo pipefail
if (($# != 2)); then
    echo "usage: tests/image.sh BINARY ROOT" >&2
    exit 1
fi
binary="$(realpath "$1")"
root="$(realpath "$2")"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
work="$(mktemp -d)"
started=()

stop() {
    local status=$?
    for process in "${started[@]}"; do
        kill "$process" 2>/dev/null && wait "$process" 2>/dev/null || true
    done
    rm -f "$root/tmp/schemabridge"
    rm -rf "$work"
    exit "$status"
}
trap stop EXIT

section() { printf '\n-- %s\n' "$1"; }

fail() {
    echo "$1" >&2
    exit 1
}

patiently() { # command...: until it succeeds, for a minute at most
    for ((tries = 0; tries < 600; tries++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "a minute went by before this succeeded: $*"
}

section 'The oldest C library'
# docs/deploy.md names it.
oldest=2.17
highest="$(readelf --version-info "$binary" | grep -o 'GLIBC_[0-9.]*' | sort --version-sort --unique | tail -n 1)"
echo "needs $highest"
[[ "$highest" == "$(printf '%s\n' "GLIBC_$oldest" "$highest" | sort --version-sort | head -n 1)" ]] || fail "$highest is later than $oldest"

# Starts it in a root under strace, asks it for its health and a registry, and ends it; its calls are in $work/calls.
serves() { # root, program in it, options of strace...
    local in_root="$1" program="$2" log="$work/log" gateway
    shift 2
    rm -f "$work/calls"
    # Not the log of the one before, whose address would be asked.
    : >"$log"
    # Traced from the side: what is started here is the gateway, not strace.
    strace --daemonize --follow-forks --quiet=all --trace=clone,clone3,fork,vfork "$@" --output="$work/calls" \
        chroot "$in_root" "$program" serve --upstream http://127.0.0.1:9 --store memory: --log-format json \
        --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 >"$log" 2>&1 &
    gateway=$!
    started+=("$gateway")
    until grep -q 'admin listening' "$log"; do
        kill -0 "$gateway" 2>/dev/null || return 1
        sleep 0.1
    done
    # The upstream is not there, and the gateway is what says so.
    [[ "$(curl --silent "http://$(address listening)/v2/")" == *'"errors"'* ]] || fail 'the gateway does not answer'
    curl --silent --fail "http://$(address 'admin listening')/readyz" >/dev/null || fail 'the gateway is not ready'
    kill -TERM "$gateway"
    wait "$gateway"
}

address() { # message
    sed -n "s/.*\"$1\".*\"address\":\"\([^\"]*\)\".*/\1/p" "$work/log" | head -n 1
}

cp "$binary" "$root/tmp/schemabridge"
serves "$root" /tmp/schemabridge
grep -q 'clone(' "$work/calls" || fail 'no thread was seen to start'
! grep 'clone3' "$work/calls" || fail 'clone3 was called in Debian 11'
# What Docker before 20.10.10 does to it.
serves "$root" /tmp/schemabridge --inject=clone3:error=EPERM
echo 'serves in Debian 11 without clone3'
# The same over a C library that does call it dies, so what was held above can fail.
if ldd --version | awk 'NR == 1 { exit !($NF >= 2.34) }'; then
    ! serves / "$binary" --inject=clone3:error=EPERM || fail 'the refusal of clone3 does nothing'
fi

section 'The image'
version="$("$binary" --version)"
version="${version#schemabridge }"
image() { deploy/image.py --program "$binary" --libraries "$root" --version "$version" --output "$1"; }
image "$work/image.tar"
image "$work/again.tar"
cmp "$work/image.tar" "$work/again.tar"
python3 tests/deploy/read_as_docker_1_9.py "$work/image.tar" schemabridge "$version" >"$work/files"
grep -qx '/var/lib/schemabridge 65532:65532 700' "$work/files" || fail 'the state is not the user'"'"'s own'
echo "$(stat --format=%s "$work/image.tar") bytes, $(wc -l <"$work/files") files and folders"

holds() { # what, JSON of the configuration
    for expected in '"User":"65532:65532"' '"/usr/bin/schemabridge","healthcheck"' '"Entrypoint":["/usr/bin/schemabridge"]' \
        '"/var/lib/schemabridge":{}' '"Cmd":["serve"]' 'STATE_DIRECTORY=/var/lib/schemabridge'; do
        [[ "$2" == *"$expected"* ]] || fail "$1 does not have $expected: $2"
    done
    [[ "$2" != *SCHEMABRIDGE_* ]] || fail "$1 has a setting that goes before the operator's file: $2"
}

holds skopeo "$(skopeo inspect --config --raw "docker-archive:$work/image.tar")"

podman=(podman --root "$work/podman" --runroot "$work/podman-run" --tmpdir "$work/podman-tmp" --storage-driver vfs
    --cgroup-manager cgroupfs --events-backend file)
"${podman[@]}" load --quiet --input "$work/image.tar"
holds podman "$("${podman[@]}" image inspect --format '{{json .Config}}{{json .HealthCheck}}' "schemabridge:$version")"
mounted="$("${podman[@]}" image mount "schemabridge:$version")"
[[ "$(chroot --userspec=65532:65532 "$mounted" /usr/bin/schemabridge --version)" == "schemabridge $version" ]] || fail 'it does not run'
serves "$mounted" /usr/bin/schemabridge --inject=clone3:error=EPERM
"${podman[@]}" image unmount "schemabridge:$version" >/dev/null
echo 'podman loads it, and it serves from its files alone'

containerd_settings="version = 2
root = \"$work/containerd\"
state = \"$work/containerd-state\"
oom_score = 0
disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\"]
[grpc]
address = \"$work/containerd.sock\"
[ttrpc]
address = \"$work/ttrpc.sock\"
[plugins.\"io.containerd.internal.v1.opt\"]
path = \"$work/opt\""
echo "$containerd_settings" >"$work/containerd.toml"
containerd --config "$work/containerd.toml" >"$work/containerd.log" 2>&1 &
started+=("$!")
patiently ctr --address "$work/containerd.sock" version
echo '{}' >"$work/daemon.json"
dockerd --config-file="$work/daemon.json" --bridge=none --iptables=false --ip6tables=false --ip-masq=false \
    --oom-score-adjust=0 --storage-driver=vfs --data-root="$work/docker" --exec-root="$work/docker-run" \
    --pidfile="$work/docker.pid" --containerd="$work/containerd.sock" --host="unix://$work/docker.sock" >"$work/dockerd.log" 2>&1 &
started=("$!" "${started[@]}")
docker() { command docker --host "unix://$work/docker.sock" "$@"; }
patiently docker version
docker load --quiet --input "$work/image.tar"
holds docker "$(docker image inspect --format '{{json .Config}}' "schemabridge:$version")"

section 'Dockerfile'
buildah=(buildah --root "$work/buildah" --runroot "$work/buildah-run" --storage-driver vfs)
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$work/policy.json"
mkdir "$work/context"
cp "$binary" "$work/context/schemabridge"
tar --directory "$root" --one-file-system --exclude=./dev --exclude=./var/cache --create --file "$work/root.tar" .
container="$("${buildah[@]}" from scratch)"
"${buildah[@]}" add --quiet "$container" "$work/root.tar" / >/dev/null
"${buildah[@]}" commit --quiet --signature-policy "$work/policy.json" --rm "$container" localhost/debian-11 >/dev/null
"${buildah[@]}" bud --quiet --isolation chroot --format docker --signature-policy "$work/policy.json" --pull-never \
    --build-arg LIBRARIES=localhost/debian-11 --target prebuilt --tag localhost/schemabridge \
    --file deploy/Dockerfile "$work/context" >/dev/null
"${buildah[@]}" push --quiet --signature-policy "$work/policy.json" localhost/schemabridge "dir:$work/built" >/dev/null
built="$(sed -n 's/.*"config":{[^}]*"digest":"sha256:\([0-9a-f]*\)".*/\1/p' <(tr -d ' \n' <"$work/built/manifest.json"))"
holds Dockerfile "$(cat "$work/built/$built")"
container="$("${buildah[@]}" from --pull-never localhost/schemabridge)"
mounted="$("${buildah[@]}" mount "$container")"
serves "$mounted" /usr/bin/schemabridge --inject=clone3:error=EPERM
[[ "$(stat --format=%u:%a "$mounted/var/lib/schemabridge")" == 65532:700 ]] || fail 'the state is not the user'"'"'s own'
# Both ways to an image lead to the same libraries.
tar --extract --to-stdout --file "$work/image.tar" --wildcards '*/layer.tar' | tar --list --file - | grep '^lib' | grep -v '/$' | sort >"$work/one"
(cd "$mounted" && find lib lib64 -type f ! -name libgcc_s.so.1 | sort) >"$work/other"
diff "$work/one" "$work/other"
"${buildah[@]}" umount "$container" >/dev/null
echo 'buildah builds it, and it serves from its files alone'
