#!/bin/sh
# Starts PgBouncer in front of DB_HOST:DB_PORT for the application's role; the monitor's may look at its figures. Reads
# DB_NAME, DB_USER, DB_PASS, DB_MONITOR_USER and DB_MONITOR_PASS (passwords from /run/secrets where they are mounted),
# PGBOUNCER_LISTEN and PGBOUNCER_PORT; writes into PGBOUNCER_DIR.
set -eu
umask 077
if [ -r /run/secrets/DB_PASS ]; then DB_PASS=$(cat /run/secrets/DB_PASS); fi
if [ -r /run/secrets/DB_MONITOR_PASS ]; then DB_MONITOR_PASS=$(cat /run/secrets/DB_MONITOR_PASS); fi
dir=${PGBOUNCER_DIR:-/tmp}
printf '"%s" "%s"\n' "$DB_USER" "$DB_PASS" "$DB_MONITOR_USER" "$DB_MONITOR_PASS" >"$dir/users.txt"
cat >"$dir/pgbouncer.ini" <<EOF
[databases]
$DB_NAME = host=$DB_HOST port=$DB_PORT dbname=$DB_NAME
[pgbouncer]
listen_addr = $PGBOUNCER_LISTEN
listen_port = $PGBOUNCER_PORT
unix_socket_dir =
auth_file = $dir/users.txt
admin_users = $DB_USER
stats_users = $DB_MONITOR_USER
pidfile = $dir/pgbouncer.pid
%include /etc/timescale/pgbouncer.ini
EOF
exec pgbouncer "$dir/pgbouncer.ini"
