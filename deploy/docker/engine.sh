#!/usr/bin/env bash
# Runs the drills where there may be no Docker engine: with the one that answers, else with one of its own, which ends with this.
#
#   deploy/docker/engine.sh [BINARY [ARGUMENTS OF drills.py]]       target/release/atoll, else target/debug/atoll; --short
#
# An engine of its own needs root, and Debian's packages docker.io, docker-compose and mmdebstrap, which are installed where they
# are missing. It has a network, folders and a socket of its own, so it meets neither another engine nor this machine's firewall.
# Where none can run this says why and ends with 0; else it ends as drills.py does. Nothing is asked of a registry where mmdebstrap
# can be had. Images are made under names of their own; they and the folder stay, so that the next time is quicker.
set -euo pipefail
binary=${1:+$(realpath -m "$1")}
if [ $# -gt 0 ]; then shift; fi
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
here=${ATOLL_ENGINE:-/var/tmp/atoll-engine}
base=atoll-drills-base:latest atoll=atoll-drills:latest redis=atoll-drills-redis:latest
export DOCKER_BUILDKIT=0 DOCKER_CLI_HINTS=false

step() { printf '\n== %s\n' "$*"; }
skip() { echo "skipped: $*"; exit 0; }
wrong() { echo "engine.sh: $*" >&2; exit 1; }
answers() { timeout 20 docker info > /dev/null 2>&1; }

for ready in target/release/atoll target/debug/atoll; do
    if [ -z "$binary" ] && [ -x "$root/$ready" ]; then binary=$root/$ready; fi
done
[ -n "$binary" ] || wrong 'there is no binary: `cargo build --release` makes target/release/atoll'
[ -x "$binary" ] || wrong "$binary can't be run"
[ $# -gt 0 ] || set -- --short

engine= drills=
work=$(mktemp -d)
stop() {
    local status=$?
    trap - EXIT INT TERM
    # They take down what they brought up.
    if [ -n "$drills" ] && kill "$drills" 2> /dev/null; then wait "$drills" || true; fi
    if [ -n "$engine" ]; then
        step 'stopping the engine'
        kill "$engine" 2> /dev/null || true
        for _ in $(seq 300); do kill -0 "$engine" 2> /dev/null || break; sleep 0.1; done
        kill -KILL "$engine" 2> /dev/null || true
        # What it mounted goes with it, but not where it had to be killed.
        { grep -o " $here/[^ ]*" /proc/mounts || true; } | tac | xargs -r umount -l 2> /dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Packages of Debian that are missing, of those that are named.
install() {
    local missing=()
    for package in "$@"; do
        dpkg -s "$package" 2> /dev/null | grep -q '^Status: install ok' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    { [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; } || return 1
    step "packages: ${missing[*]}"
    # What is installed is not to be started.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod +x "$policy"
    else
        policy=
    fi
    local installed=0
    { timeout 120 apt-get update -qq \
        && DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -y -qq --no-install-recommends "${missing[@]}" > "$work/apt"; } || installed=1
    [ -z "$policy" ] || rm -f "$policy"
    return "$installed"
}

# An engine in a network of its own, in which drills have to be too.
start() { # OPTIONS
    rm -rf "$here/run" "$here/pid" "$here/socket"
    mkdir -p "$here/run" "$here/data"
    # Debian's iptables speaks nftables; a kernel may know the older tables alone.
    local path=$PATH
    if [ "${1:-}" = legacy ]; then
        shift
        mkdir -p "$work/bin"
        for name in iptables ip6tables; do ln -sf "$(command -v "$name-legacy")" "$work/bin/$name"; done
        path=$work/bin:$path
    fi
    PATH=$path setsid unshare --net sh -c 'ip link set lo up; exec "$@"' - dockerd \
        --data-root "$here/data" --exec-root "$here/run" --pidfile "$here/pid" --host "unix://$here/socket" \
        --containerd-namespace atoll-drills --containerd-plugins-namespace atoll-drills-plugins "$@" > "$work/engine.log" 2>&1 &
    engine=$!
    for _ in $(seq 60); do
        if answers; then return 0; fi
        kill -0 "$engine" 2> /dev/null || break
        sleep 0.5
    done
    kill "$engine" 2> /dev/null || true
    wait "$engine" 2> /dev/null || true
    engine=
    return 1
}

if command -v docker > /dev/null && answers; then
    echo "the engine that answers is used: $(docker info --format '{{.ServerVersion}}' 2> /dev/null)"
    docker compose version > /dev/null 2>&1 || command -v docker-compose > /dev/null || install docker-compose \
        || skip 'there is neither `docker compose` nor docker-compose'
else
    [ "$(id -u)" -eq 0 ] || skip 'no Docker engine answers, and one of its own needs root'
    install docker.io docker-compose mmdebstrap iptables iproute2 util-linux openssl python3 || skip 'packages for an engine can not be installed here'
    export DOCKER_HOST=unix://$here/socket
    mkdir -p "$here"
    exec 9> "$here/lock"
    flock -n 9 || skip "another run uses $here"
    unshare --net true 2> /dev/null || skip 'there is no right to make a network (unshare)'
    step "starting an engine in $here"
    start || start legacy || start --storage-driver vfs || start legacy --storage-driver vfs || {
        tail -n 5 "$work/engine.log"
        skip 'an engine does not start here, for the reasons above'
    }
    echo "an engine runs: $(docker info --format '{{.ServerVersion}}, {{.Driver}}' 2> /dev/null)"
fi

for program in python3 openssl; do command -v "$program" > /dev/null || skip "there is no $program"; done

if ! docker image inspect "$base" > /dev/null 2>&1; then
    step 'making the base image'
    # The binary was linked with this machine's C library, so the base is to have no older one.
    suite=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-bookworm}" || echo bookworm)
    sources=()
    for list in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
        if grep -qsE "^[^#]*\b$suite\b" "$list"; then sources=("$list"); break; fi
    done
    if install mmdebstrap && timeout 400 mmdebstrap --quiet --variant=minbase --include=binutils,ca-certificates,redis-server \
        "$suite" "$work/base.tar" "${sources[@]}" 2> "$work/mmdebstrap.log"; then
        timeout 120 docker import "$work/base.tar" "$base" > /dev/null
        rm -f "$work/base.tar"
    elif [ -z "$engine" ] && timeout 120 docker pull -q debian:bookworm-slim > /dev/null 2>&1; then
        docker tag debian:bookworm-slim "$base"
    else
        tail -n 5 "$work/mmdebstrap.log" 2> /dev/null || true
        skip 'no base image can be had: mmdebstrap finds no mirror, and no registry answers'
    fi
fi

# An engine may run where no container can: a system of control groups that can't be written to, for one.
timeout 60 docker run --rm "$base" true > "$work/try.log" 2>&1 || { tail -n 3 "$work/try.log"; skip 'no container runs here, for the reasons above'; }

step "building images of $binary"
mkdir "$work/context"
cp "$binary" "$work/context/atoll"
cp "$root"/LICENSE-* "$work/context/"
timeout 300 docker build -q -f Dockerfile -t "$atoll" --build-arg BASE="$base" --build-arg BINARY=atoll "$work/context" 2> "$work/build.log" \
    || { cat "$work/build.log" >&2; wrong 'the image can not be built'; }
timeout 300 docker build -q -f redis.Dockerfile -t "$redis" --build-arg BASE="$base" . 2> "$work/build.log" \
    || { cat "$work/build.log" >&2; wrong 'the image of Redis can not be built'; }
rm -rf "$work/context"

step "drills: $*"
export ATOLL_IMAGE=$atoll REDIS_IMAGE=$redis
# They have bounds of their own; this one is for what nobody thought of. They run beside this, so that signals reach it at once.
inside=()
[ -z "$engine" ] || inside=(nsenter --net="/proc/$engine/ns/net")
"${inside[@]}" timeout --signal=TERM --kill-after=60 3600 python3 drills.py "$@" &
drills=$!
wait "$drills"
