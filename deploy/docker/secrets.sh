#!/usr/bin/env bash
# Makes what compose.yaml names under `secrets`, in ./secrets: a CA and the certificates of the origins, tokens and passwords.
# What is there stays as it is, so it may be run again; `secrets.sh renew` issues the certificates anew, by the same CA.
#
# Compose mounts these files as they are, owner and mode included, and containers run as users that this machine may not
# have. Run by root, each file belongs to the one user that reads it, with mode 600. Run by somebody else, who can't give files
# away, they are 444, and the folder alone keeps others out: it is 700, which does not matter to a mount.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
chmod 700 secrets
cd secrets

# The users of the containers.
atoll=65532 redis=999 grafana=472
# How long certificates are good, in days.
days_of_ca=3650 days=397

missing() { [ ! -s "$1" ]; }

# Writes standard input into a file that may be mounted: into the same file, which a container would lose sight of otherwise.
# A file that is there whole is never left half written.
write() { # FILE USER
    local text
    text=$(cat)
    [ -n "$text" ] || { echo "secrets.sh: there is nothing to write into $1" >&2; exit 1; }
    [ ! -e "$1" ] || chmod u+w "$1"
    printf '%s\n' "$text" > "$1"
    if [ "$(id -u)" -eq 0 ]; then
        chown "$2" "$1"
        chmod 600 "$1"
    else
        chmod 444 "$1"
    fi
    echo "made $1"
}

random() { openssl rand -hex 32; }
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256; }

# A Redis compares digests, so its list of users holds no password.
digest() { tr -d '\n' < "$1" | openssl dgst -sha256 -r | cut -d ' ' -f 1; }

certificate() { # NAME
    openssl req -new -key "$1.key" -subj "/CN=$1" \
        | openssl x509 -req -days "$days" -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -extfile <(cat <<END
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:$1, DNS:localhost, IP:127.0.0.1
END
        ) 2> /dev/null
}

# The CA's key is for this script alone: no container mounts it. Keep a copy elsewhere.
if missing ca.key; then
    key > ca.key
    echo 'made ca.key'
fi
if missing ca.pem; then
    openssl req -x509 -new -key ca.key -days "$days_of_ca" -config <(cat <<'END'
[req]
distinguished_name = name
x509_extensions = ca
prompt = no
[name]
CN = Atoll origins
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
    ) | write ca.pem "$atoll"
    # It is no secret, and Prometheus reads it too.
    chmod 444 ca.pem
fi
for origin in origin-1 origin-2; do
    if missing "$origin.key"; then key | write "$origin.key" "$atoll"; fi
    if missing "$origin.pem" || [ "${1:-}" = renew ]; then certificate "$origin" | write "$origin.pem" "$atoll"; fi
done

# What followers show the origins.
if missing follow; then random | write follow "$atoll"; fi
if missing grafana; then random | write grafana "$grafana"; fi

# The users of each Redis have the rights that docs/engines.md names. `health` asks how it is: it has no password, and no right
# to anything else.
health='user health on nopass resetkeys resetchannels -@all +ping +info'
name=example
for region in fra iad sin; do
    if missing "redis-$region"; then random | write "redis-$region" "$atoll"; fi
    if missing "redis-$region.acl"; then
        write "redis-$region.acl" "$redis" <<END
user default off
user edge on #$(digest "redis-$region") resetkeys ~$name:atoll-l2.* resetchannels -@all +eval +evalsha +hset +hget +hmget +hdel +hlen +hstrlen +pttl +pexpire +unlink +time +info +config|get
$health
END
    fi
done

# `+@connection` brings WAITAOF where there is one: an older Redis refuses its name. A Redis reads its log with the rights of the
# default user, which has them all, and which nobody can be.
if missing redis-control; then random | write redis-control "$atoll"; fi
if missing redis-replica; then random | write redis-replica "$redis"; fi
if missing redis-control.acl; then
    write redis-control.acl "$redis" <<END
user default off nopass ~* &* +@all
user atoll on #$(digest redis-control) resetkeys ~{$name}:atoll-* resetchannels -@all +@connection -@admin -@dangerous +eval +evalsha +hset +hget +hmget +hgetall +hdel +hexists +hincrby +hkeys +hlen +exists +del +get +set +incr +time +xadd +xrange +xread +xtrim +zadd +zcard +zcount +zrange +zrangebyscore +zrem +zscore +wait +info +config|get +acl|getuser +command|info
user replica on #$(digest redis-replica) resetkeys resetchannels -@all +psync +replconf +ping
$health
END
fi
# What the replica reads beside its own file.
if missing redis-replica.conf; then
    write redis-replica.conf "$redis" <<END
masteruser replica
masterauth $(cat redis-replica)
END
fi
