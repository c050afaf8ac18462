#!/usr/bin/env bash
# Holds what is in deploy/ to the programs that read it: systemd, dpkg, lintian, docker-compose and yamllint.
#
#   tests/deploy.sh BINARY ROOT
#
# BINARY is the portable one. ROOT is a Debian 11 file system of debootstrap's; the package is installed in it and purged.
set -euo pipefail
if (($# != 2)); then
    echo "usage: tests/deploy.sh BINARY ROOT" >&2
    exit 1
fi
binary="$(realpath "$1")"
root="$(realpath "$2")"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

section() { printf '\n-- %s\n' "$1"; }

fail() {
    echo "$1" >&2
    exit 1
}

section 'systemd'
# Exposure that `systemd-analyze security` finds: 0 is none, 10 is all. docs/deploy.md names the figure.
most_exposure=1.3
mkdir "$work/units"
# The program is not in its place here.
sed "s#/usr/bin/schemabridge#$binary#" deploy/systemd/schemabridge.service >"$work/units/schemabridge.service"
cp deploy/systemd/schemabridge.socket "$work/units"
systemd-analyze verify --man=no "$work"/units/* 2>&1 | tee "$work/verified"
[[ ! -s "$work/verified" ]] || fail 'systemd-analyze verify has something to say against the units'
threshold="$(awk "BEGIN { print $most_exposure * 10 }")"
systemd-analyze security --offline=true --no-pager --threshold="$threshold" "$work/units/schemabridge.service" | tail -n 1

section 'A Debian package'
mkdir "$work/packages" "$work/again"
package="$(deploy/deb.sh "$binary" "$work/packages")"
cmp "$package" "$(deploy/deb.sh "$binary" "$work/again")"
lintian --fail-on error --allow-root "$package"
cp "$package" "$root/tmp/schemabridge.deb"
in_root() { chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
# What a run that was killed left there.
in_root dpkg --purge schemabridge >/dev/null 2>&1
in_root dpkg --install /tmp/schemabridge.deb >/dev/null
[[ "$(in_root schemabridge --version)" == "schemabridge $(dpkg-deb --field "$package" Version)" ]] || fail 'the installed program has another version'
cmp deploy/systemd/schemabridge.env "$root/etc/schemabridge/schemabridge.env"
echo '# changed by the operator' >>"$root/etc/schemabridge/schemabridge.env"
in_root dpkg --remove schemabridge >/dev/null
grep -q 'changed by the operator' "$root/etc/schemabridge/schemabridge.env" || fail 'a removal took the settings along'
# The state as systemd lays it out for a service whose user is made for it.
mkdir -p "$root/var/lib/private/schemabridge/v1"
ln -s private/schemabridge "$root/var/lib/schemabridge"
in_root dpkg --purge schemabridge >/dev/null
rm "$root/tmp/schemabridge.deb"
left="$(find "$root"/{etc,usr,lib,var/lib} -xdev -path "$root/var/lib/dpkg" -prune -o -name '*schemabridge*' -print)"
[[ -z "$left" ]] || fail "a purge left $left"
echo 'installed, ran, removed and purged without a trace'

section 'compose'
docker-compose --file deploy/compose.yaml config >"$work/compose"
# What it sets, the program itself takes.
settings="$(sed -n 's/^ *\(SCHEMABRIDGE_[A-Z_]*\): \(.*\)$/\1=\2/p' "$work/compose")"
[[ -n "$settings" ]] || fail 'the gateway has no settings'
env --ignore-environment $settings "$binary" check-config >"$work/in-force"
grep -q 'http://registry:5000' "$work/in-force" || fail 'the gateway is not in front of the registry'

section 'yamllint'
# Not the alerts: their expressions are as long as they are.
"${XDG_CACHE_HOME:-${HOME:?}/.cache}/schemabridge-tools/python/bin/yamllint" --strict \
    --config-data '{extends: default, rules: {line-length: {max: 120}, document-start: disable}}' \
    deploy/compose.yaml deploy/kubernetes deploy/clients
