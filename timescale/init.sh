#!/bin/sh
# Runs init.sql as the superuser, once, after initdb. Reads DB_NAME, DB_USER, DB_PASS, DB_MONITOR_USER and
# DB_MONITOR_PASS; the passwords from /run/secrets if they are mounted there.
set -eu
if [ -r /run/secrets/DB_PASS ]; then DB_PASS=$(cat /run/secrets/DB_PASS); fi
if [ -r /run/secrets/DB_MONITOR_PASS ]; then DB_MONITOR_PASS=$(cat /run/secrets/DB_MONITOR_PASS); fi
export DB_PASS DB_MONITOR_PASS
psql -q -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres --file /etc/timescale/init.sql
