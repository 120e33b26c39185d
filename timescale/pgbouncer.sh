#!/bin/sh
# Starts PgBouncer in front of DB_HOST:DB_PORT for the application's role. Reads DB_NAME, DB_USER and DB_PASS (from
# /run/secrets where it is mounted), PGBOUNCER_LISTEN and PGBOUNCER_PORT; writes into PGBOUNCER_DIR.
set -eu
umask 077
if [ -r /run/secrets/DB_PASS ]; then DB_PASS=$(cat /run/secrets/DB_PASS); fi
dir=${PGBOUNCER_DIR:-/tmp}
printf '"%s" "%s"\n' "$DB_USER" "$DB_PASS" >"$dir/users.txt"
cat >"$dir/pgbouncer.ini" <<EOF
[databases]
$DB_NAME = host=$DB_HOST port=$DB_PORT dbname=$DB_NAME
[pgbouncer]
listen_addr = $PGBOUNCER_LISTEN
listen_port = $PGBOUNCER_PORT
unix_socket_dir =
auth_file = $dir/users.txt
admin_users = $DB_USER
pidfile = $dir/pgbouncer.pid
%include /etc/timescale/pgbouncer.ini
EOF
exec pgbouncer "$dir/pgbouncer.ini"
