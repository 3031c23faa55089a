#!/bin/sh
# Makes .env for docker-compose.yml, with new secrets, readable by its owner alone.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: docker/new-env.sh DOMAIN    (the name by which silos and browsers will reach this server)" >&2
    exit 2
fi
case $1 in
    *[!a-z0-9.-]* | "" | .* | -*)
        echo "docker/new-env.sh: '$1' is no domain; give its name alone, in lower case: trunkline.example.org" >&2
        exit 2
        ;;
esac

secret() {
    od -A n -t x1 -N 32 /dev/urandom | tr -d ' \n'
}

cd "$(dirname "$0")/.."
umask 077
set -C  # never write over a file: a lost password is a lost database
{ true > .env; } 2> /dev/null || {
    echo "docker/new-env.sh: .env is there already, and its secrets are in use; change it by hand" >&2
    exit 5
}
cat >| .env <<END
# Read by docker compose. Holds secrets: keep it at mode 0600, and in your backup.
TRUNKLINE_DOMAIN=$1

# How the proxy gets its certificate: an e-mail address for one by ACME (the domain must be reachable on ports 80
# and 443), or two files in TRUNKLINE_TLS_DIR: "/tls/certificate.pem /tls/key.pem", or "internal" for a trial.
TRUNKLINE_TLS=admin@$1
# TRUNKLINE_TLS_DIR=/srv/trunkline/tls

# Model folders that may be registered lie below this one, which has to be there.
TRUNKLINE_MODELS_DIR=/srv/trunkline/models

# Changed together with the database's and broker's own: docs/operations.md, "Rotate".
TRUNKLINE_POSTGRES_PASSWORD=$(secret)
TRUNKLINE_REDIS_PASSWORD=$(secret)
TRUNKLINE_STANDINGS_TOKEN=$(secret)
TRUNKLINE_METRICS_TOKEN=$(secret)

# Where the federation's root is offline: what trunkline root init printed. Before the first start.
# TRUNKLINE_ROOT_PUBLIC_KEY=

# One worker on this machine: cpu or gpu, and its invitation for its first start.
# COMPOSE_PROFILES=gpu
# TRUNKLINE_WORKER_INVITATION=

# A second gateway: COMPOSE_PROFILES=second-gateway (several profiles: separated by commas), and both addresses.
# TRUNKLINE_GATEWAY_URL=wss://$1/relay,wss://$1/relay-2
END
echo "made .env; look it through, then: docker compose up --detach --wait"
