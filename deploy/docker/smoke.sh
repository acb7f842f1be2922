#!/usr/bin/env bash
# Tries what compose.yaml runs from the outside: health, a publish, a hit, a purge with its proof, and DNS. It ends with 1 at the
# first thing that is wrong. COMPOSE names the command, where it is not to be `docker compose`, or `docker-compose` without that.
set -euo pipefail
cd "$(dirname "$0")"

if [ -z "${COMPOSE:-}" ]; then
    COMPOSE='docker compose'
    docker compose version > /dev/null 2>&1 || COMPOSE=docker-compose
fi
compose() { $COMPOSE "$@"; }
# The command line of Atoll, in a container of its own; folders are mounted by `-v`.
atoll() { compose run --rm -T "${mounts[@]}" cli "$@" 2> "$work/said" || { cat "$work/said" >&2; return 1; }; }

step() { printf '\n== %s\n' "$*"; }
wrong() { printf '\nWRONG: %s\n' "$*" >&2; exit 1; }

nodes='origin-1 origin-2 fra-1 fra-2 iad-1 iad-2 sin-1 sin-2 ns-1 ns-2'
others='redis-control redis-replica redis-fra redis-iad redis-sin'
edges='fra-1=8081 fra-2=8082 iad-1=8083 iad-2=8084 sin-1=8085 sin-2=8086'
patience=${PATIENCE:-120}
project=${COMPOSE_PROJECT_NAME:-$(sed -n 's/^COMPOSE_PROJECT_NAME=//p' .env)}
mounts=()
etags=
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Asks an edge: the head goes to $work/head, the body to standard output.
ask() { # PORT URL
    local host=${2#http://}
    curl -sS --max-time 10 --noproxy '*' --resolve "${host%%/*}:$1:127.0.0.1" -D "$work/head" "http://${host%%/*}:$1/${host#*/}"
}
field() { tr -d '\r' < "$work/head" | sed -n "s/^$1: //Ip"; }
status() { head -n 1 "$work/head" | cut -d ' ' -f 2; }

step "waiting until all is healthy, ${patience} s at the most"
begun=$SECONDS
while :; do
    # Both versions of compose label containers alike.
    docker ps -a --filter "label=com.docker.compose.project=$project" --format '{{.Label "com.docker.compose.service"}} {{.Status}}' > "$work/ps"
    unwell=
    for service in $others $nodes; do
        grep -q "^$service .*(healthy)" "$work/ps" || unwell+="  $service: $(sed -n "s/^$service //p" "$work/ps")
"
    done
    [ -n "$unwell" ] || break
    [ $((SECONDS - begun)) -lt "$patience" ] || wrong "these are not healthy:
$unwell"
    sleep 1
done
echo "all $(wc -w <<< "$others $nodes") containers are healthy, after $((SECONDS - begun)) s"
atoll status || wrong 'the origins do not answer'

step 'publishing a folder, and fetching it at every edge'
mark="smoke $RANDOM$RANDOM at $(date -u +%FT%TZ)"
mkdir -p "$work/site"
echo "<!doctype html><title>$mark</title>" > "$work/site/index.html"
chmod -R a+rX "$work"
mounts=(-v "$work/site:/site:ro")
atoll publish /site --site www || wrong 'the publish failed'
mounts=()
for edge in $edges; do
    body=$(ask "${edge#*=}" http://www.example.test/) || wrong "${edge%=*} does not answer"
    [ "$(status)" = 200 ] || wrong "${edge%=*} answered $(status): $body"
    [ "$body" = "$(cat "$work/site/index.html")" ] || wrong "${edge%=*} serves something else: $body"
    printf '%s  200  etag %.18s...  %s\n' "${edge%=*}" "$(field etag)" "$(field cache-status)"
    etags+="$(field etag)
"
done
[ "$(printf '%s' "$etags" | sort -u | wc -l)" = 1 ] || wrong 'edges serve different versions'

# A product that nobody asked for in the minute before.
product=$((RANDOM * 32768 + RANDOM))
url=http://api.example.test/api/products/$product
step "fetching $url twice: a miss, then a hit"
for expected in 'fwd=uri-miss' 'hit'; do
    before=$(ask 8081 "$url") || wrong 'fra-1 does not answer'
    printf 'fra-1  %s  %s\n' "$(status)" "$(field cache-status)"
    [ "$(status)" = 200 ] || wrong "fra-1 answered $(status): $before"
    case $(field cache-status) in *"$expected"*) ;; *) wrong "this was to be a $expected" ;; esac
done

step "the upstream's data change; edges that have the response do not know"
for edge in $edges; do ask "${edge#*=}" "$url" > /dev/null || wrong "${edge%=*} does not answer"; done
raised=$(curl -sS --max-time 10 --noproxy '*' -X POST -H 'Host: api.example.test' http://127.0.0.1:8081/api/raise) || wrong 'the upstream does not answer'
raised=$(sed -n 's/^{"version":\([0-9]*\)}$/\1/p' <<< "$raised")
[ -n "$raised" ] || wrong 'the upstream does not say which version it has'
echo "upstream  version $raised"
for edge in $edges; do
    body=$(ask "${edge#*=}" "$url") || wrong "${edge%=*} does not answer"
    printf '%s  %s  %s\n' "${edge%=*}" "$body" "$(field cache-status)"
    case $(field cache-status) in *'; hit;'*) ;; *) wrong "${edge%=*} did not answer from its cache" ;; esac
done

step "purging the tag product-$product"
atoll purge --tag "product-$product" --json > "$work/receipt" || wrong 'the purge was not complete'
python3 - "$work/receipt" <<'END' || wrong 'the receipt proves less than that every edge has applied it'
import json, sys
receipt = json.load(open(sys.argv[1]))
print(f"purge {receipt['seq']} is {receipt['state']}")
for edge in receipt["followers"]:
    print(f"{edge['name']}  {edge['state']} after {edge['after_ms']} ms")
for note in receipt.get("notes", []):
    print("note:", note)
applied = sorted(edge["name"] for edge in receipt["followers"] if edge["state"] == "applied")
proved = applied == ["fra-1", "fra-2", "iad-1", "iad-2", "sin-1", "sin-2"]
# A note says that what was accepted may be lost, or that the purge can touch nothing.
sys.exit(not (proved and receipt["state"] == "complete" and not receipt.get("notes")))
END

step 'fetching again: no edge answers with what it had'
for edge in $edges; do
    body=$(ask "${edge#*=}" "$url") || wrong "${edge%=*} does not answer"
    [ "$(status)" = 200 ] || wrong "${edge%=*} answered $(status): $body"
    printf '%s  %s  %s\n' "${edge%=*}" "$body" "$(field cache-status)"
    case $body in *"\"version\":$raised}"*) ;; *) wrong "${edge%=*} answers from what was purged" ;; esac
done

step 'asking both DNS nodes for www.example.test, as a client of each region, by UDP and TCP'
python3 - <<'END' || wrong 'DNS does not steer'
import socket, struct, sys

def ask(port, tcp, subnet):
    """Returns the addresses of www.example.test for a client of a /24."""
    name = b"".join(bytes([len(label)]) + label for label in (b"www", b"example", b"test")) + b"\0"
    option = struct.pack("!HHHBB", 8, 7, 1, 24, 0) + bytes(int(part) for part in subnet.split(".")[:3])
    question = struct.pack("!6H", 4711, 0, 1, 0, 0, 1) + name + struct.pack("!HH", 1, 1)
    question += b"\0" + struct.pack("!HHIH", 41, 1232, 0, len(option)) + option
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", port))
        sock.sendall(struct.pack("!H", len(question)) + question if tcp else question)
        answer = sock.recv(4096)
        if tcp:
            while len(answer) < 2 or len(answer) < 2 + struct.unpack("!H", answer[:2])[0]:
                answer += sock.recv(4096) or sys.exit("the connection ended")
            answer = answer[2:]
    number, flags, _, count = struct.unpack("!4H", answer[:8])
    if number != 4711 or flags & 0x800F != 0x8000:
        sys.exit(f"port {port}: flags {flags:#06x}")
    at, found = 12 + len(name) + 4, []
    for _ in range(count):
        while answer[at] & 0xC0 != 0xC0 and answer[at] != 0:
            at += 1 + answer[at]
        at += 1 if answer[at] == 0 else 2
        kind, _, _, length = struct.unpack("!HHIH", answer[at : at + 10])
        at += 10 + length
        if kind == 1:
            found.append(".".join(str(byte) for byte in answer[at - 4 : at]))
    return sorted(found)

regions = {"fra": "192.0.2", "iad": "198.51.100", "sin": "203.0.113"}
for node, port in (("ns-1", 5301), ("ns-2", 5302)):
    for region, prefix in regions.items():
        for tcp in (False, True):
            found = ask(port, tcp, f"{prefix}.7")
            print(f"{node}  {'tcp' if tcp else 'udp'}  a client of {region}: {' '.join(found)}")
            if found != [f"{prefix}.11", f"{prefix}.12"]:
                sys.exit(f"{node} gives a client of {region} other edges")
END

printf '\nOK: all holds, after %s s\n' "$SECONDS"
