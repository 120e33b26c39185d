#!/bin/sh
# Runs init.sql as the superuser, once, after the cluster is made. Reads DB_NAME, DB_USER and DB_PASS, the last from
# /run/secrets where it is mounted.
set -eu
if [ -r /run/secrets/DB_PASS ]; then DB_PASS=$(cat /run/secrets/DB_PASS); fi
export DB_PASS
psql -q -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres --file /etc/timescale/init.sql
