#!/bin/sh
# Checks the units as systemd reads them: no complaint, and an exposure of at most THRESHOLD tenths (11 is 1.1 of 10).
set -eu
cd "$(dirname "$0")"
threshold=${THRESHOLD:-11}

if ! command -v systemd-analyze >/dev/null; then
    echo "skipped: systemd-analyze is not installed"
    exit 0
fi

failed=0
wrong() {
    echo "wrong: $*" >&2
    failed=1
}

# A root of its own: the binary need not be installed, and drop-ins of this machine stay out of it.
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
units=$root/usr/lib/systemd/system
mkdir -p "$units" "$root/usr/bin" "$root/etc"
for program in atoll kill; do
    printf '#!/bin/sh\n' >"$root/usr/bin/$program"
    chmod +x "$root/usr/bin/$program"
done
# Targets that the units name.
for target in network-online multi-user sockets sysinit basic shutdown network; do
    printf '[Unit]\nDescription=%s\n' "$target" >"$units/$target.target"
done
cp -- *.service *.socket "$units"
# Instances as they are in use.
for kind in service socket; do
    ln -s "atoll-edge@.$kind" "$units/atoll-edge@fra-1.$kind"
    ln -s "atoll-dns@.$kind" "$units/atoll-dns@ns-1.$kind"
done

for name in atoll-origin atoll-edge@fra-1 atoll-dns@ns-1; do
    for kind in service socket; do
        said=$(systemd-analyze verify --man=no --root="$root" "$name.$kind" 2>&1) || wrong "systemd-analyze verify $name.$kind"
        [ -z "$said" ] || wrong "$name.$kind: $said"
    done
    exposed=$(systemd-analyze security --offline=true --no-pager --root="$root" --threshold="$threshold" "$name.service" 2>&1) ||
        wrong "$name.service is more exposed than $threshold tenths"
    echo "$exposed" | sed -n 's/^.*Overall exposure level for //p'
done

# What hardens them is the same everywhere.
hardening() {
    sed -n '/^# What the process can reach/,/^\[Install\]/p' "$1"
}
for unit in atoll-edge@.service atoll-dns@.service; do
    [ "$(hardening "$unit")" = "$(hardening atoll-origin.service)" ] || wrong "$unit is hardened in another way than atoll-origin.service"
done
[ -n "$(hardening atoll-origin.service)" ] || wrong "atoll-origin.service has no block of hardening"

# The user that the units name, and the folder of the configuration.
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers --root="$root" "$PWD/sysusers.conf" >/dev/null 2>&1 || wrong "systemd-sysusers refuses sysusers.conf"
    grep -q '^atoll:' "$root/etc/passwd" || wrong "sysusers.conf makes no user atoll"
fi
if command -v systemd-tmpfiles >/dev/null; then
    said=$(systemd-tmpfiles --create --root="$root" "$PWD/tmpfiles.conf" 2>&1) || wrong "systemd-tmpfiles refuses tmpfiles.conf: $said"
    [ -d "$root/etc/atoll" ] || wrong "tmpfiles.conf makes no /etc/atoll"
fi

[ "$failed" = 0 ] && echo "the units are right"
exit "$failed"
