#!/usr/bin/env bash
# Makes a Debian package of a built binary. It prints the path of the package.
#
#   deploy/deb.sh BINARY DIRECTORY
#
# The same binary and SOURCE_DATE_EPOCH (else the last commit's time) give the same bytes.
set -euo pipefail
if (($# != 2)); then
    echo "usage: deploy/deb.sh BINARY DIRECTORY" >&2
    exit 1
fi
binary="$(realpath "$1")"
output="$(realpath "$2")"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)"
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1700000000)}"
machine="$(readelf --file-header "$binary" | sed -n 's/^ *Machine: *//p')"
case "$machine" in
    *X86-64*) architecture=amd64 ;;
    *AArch64*) architecture=arm64 ;;
    *)
        echo "$binary is for '$machine': expected x86-64 or AArch64" >&2
        exit 1
        ;;
esac

root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
chmod 0755 "$root"
documents="$root/usr/share/doc/schemabridge"
manual="$root/usr/share/man/man1"
mkdir -p "$documents" "$manual" "$root/DEBIAN"

install -D --mode 0755 "$binary" "$root/usr/bin/schemabridge"
install -D --mode 0644 --target-directory "$root/lib/systemd/system" deploy/systemd/schemabridge.{service,socket}
install -D --mode 0644 --target-directory "$root/etc/schemabridge" deploy/systemd/schemabridge.env
install -D --mode 0644 --target-directory "$documents" deploy/debian/copyright README.md docs/*.md
sed "s/@DATE@/$(date --utc --date "@$SOURCE_DATE_EPOCH" --rfc-email)/; s/@VERSION@/$version/" deploy/debian/changelog |
    gzip --best --no-name >"$documents/changelog.gz"
gzip --best --no-name <deploy/debian/schemabridge.1 >"$manual/schemabridge.1.gz"
chmod 0644 "$documents/changelog.gz" "$manual/schemabridge.1.gz"

echo /etc/schemabridge/schemabridge.env >"$root/DEBIAN/conffiles"
install --mode 0755 --target-directory "$root/DEBIAN" deploy/debian/{postinst,prerm,postrm}
sed "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@SIZE@/$(du --summarize --apparent-size --block-size 1024 "$root/usr" | cut -f 1)/" \
    deploy/debian/control >"$root/DEBIAN/control"
(cd "$root" && find etc lib usr -type f -print0 | LC_ALL=C sort --zero-terminated | xargs --null md5sum) >"$root/DEBIAN/md5sums"
chmod 0644 "$root"/DEBIAN/{conffiles,control,md5sums}
find "$root" -type d -exec chmod 0755 {} +

package="$output/schemabridge_${version}_$architecture.deb"
# xz, which the dpkg of an old Debian reads too.
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
echo "$package"
