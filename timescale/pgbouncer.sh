#!/bin/sh
# Starts PgBouncer in front of DB_HOST:DB_PORT for the application's role; the monitor's role may read its statistics.
# The database has three names, one for each pool mode: DB_NAME with _session, _transaction and _statement.
# Reads DB_NAME, DB_USER, DB_PASS, DB_MONITOR_USER and DB_MONITOR_PASS (passwords from /run/secrets if mounted there),
# DB_STATEMENT_TIMEOUT, DB_SSLMODE and DB_SSLROOTCERT (TLS to the server; empty: prefer), PGBOUNCER_LISTEN,
# PGBOUNCER_PORT and the sizes. Writes into PGBOUNCER_DIR. Only users in PGBOUNCER_ADMIN_USERS, which the lab and the
# tests set, may PAUSE, KILL or SHUTDOWN it.
set -eu
umask 077
if [ -r /run/secrets/DB_PASS ]; then DB_PASS=$(cat /run/secrets/DB_PASS); fi
if [ -r /run/secrets/DB_MONITOR_PASS ]; then DB_MONITOR_PASS=$(cat /run/secrets/DB_MONITOR_PASS); fi
dir=${PGBOUNCER_DIR:-/tmp}
server="host=$DB_HOST port=$DB_PORT dbname=$DB_NAME"
export PGSSLMODE="${DB_SSLMODE:-prefer}" PGSSLROOTCERT="${DB_SSLROOTCERT:-}"

# PgBouncer does not pass startup options on, and DISCARD ALL resets a SET. So the statement timeout is a setting of the
# role in this database. Direct connections send their own.
PGPASSWORD=$DB_PASS psql -qX -v ON_ERROR_STOP=1 -v database="$DB_NAME" "$server user=$DB_USER" <<EOF
ALTER ROLE CURRENT_USER IN DATABASE :"database" SET statement_timeout = $DB_STATEMENT_TIMEOUT
EOF

printf '"%s" "%s"\n' "$DB_USER" "$DB_PASS" "$DB_MONITOR_USER" "$DB_MONITOR_PASS" >"$dir/users.txt"
cat >"$dir/pgbouncer.ini" <<EOF
[databases]
${DB_NAME}_session = $server pool_mode=session
${DB_NAME}_transaction = $server pool_mode=transaction
${DB_NAME}_statement = $server pool_mode=statement
[pgbouncer]
listen_addr = $PGBOUNCER_LISTEN
listen_port = $PGBOUNCER_PORT
unix_socket_dir =
auth_file = $dir/users.txt
admin_users = ${PGBOUNCER_ADMIN_USERS:-}
stats_users = $DB_MONITOR_USER
server_tls_sslmode = $PGSSLMODE
server_tls_ca_file = $PGSSLROOTCERT
pidfile = $dir/pgbouncer.pid
default_pool_size = $PGBOUNCER_POOL_SIZE
reserve_pool_size = $PGBOUNCER_RESERVE_POOL_SIZE
; All three pools belong to this user and share this limit.
max_user_connections = $((PGBOUNCER_POOL_SIZE + PGBOUNCER_RESERVE_POOL_SIZE))
max_client_conn = $PGBOUNCER_MAX_CLIENT_CONN
query_wait_timeout = $PGBOUNCER_QUERY_WAIT_TIMEOUT_S
%include /etc/timescale/pgbouncer.ini
EOF
exec pgbouncer "$dir/pgbouncer.ini"
