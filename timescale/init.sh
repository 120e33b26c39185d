#!/bin/sh
# Runs init.sql as the superuser, once, after the cluster is made. Reads DB_NAME, and DB_USER, DB_PASS, DB_MONITOR_USER
# and DB_MONITOR_PASS, the passwords from /run/secrets where they are mounted.
set -eu
if [ -r /run/secrets/DB_PASS ]; then DB_PASS=$(cat /run/secrets/DB_PASS); fi
if [ -r /run/secrets/DB_MONITOR_PASS ]; then DB_MONITOR_PASS=$(cat /run/secrets/DB_MONITOR_PASS); fi
export DB_PASS DB_MONITOR_PASS
psql -q -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres --file /etc/timescale/init.sql
