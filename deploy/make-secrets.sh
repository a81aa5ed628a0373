#!/bin/sh
# Makes the secrets that compose.yaml mounts, each in a file of its own. What is there already is kept.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p compose/secrets
cd compose/secrets

random() {
    head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'
}

# Writes a secret that is not there yet. Containers have users of their own, so that the files can be read by all; the
# folder cannot.
put() {
    if [ ! -e "$1" ]; then
        printf '%s\n' "$2" > "$1"
        chmod 644 "$1"
        echo "made compose/secrets/$1"
    fi
}

put redis-password "$(random)"
put redis.conf "requirepass $(cat redis-password)
save \"\"
appendonly no
maxmemory 256mb
maxmemory-policy noeviction"
put registry "redis://:$(cat redis-password)@redis:6379"
put api-key "$(random)"
put api-keys "operator: $(cat api-key)"
put signing-secret "$(random)"
put livekit-api-key "key$(random | cut -c1-12)"
put livekit-api-secret "$(random)"
put livekit-keys "$(cat livekit-api-key): $(cat livekit-api-secret)"
# LiveKit takes no file of keys that others can read.
chmod 600 livekit-keys
put grafana-password "$(random)"
