#!/bin/sh
# Starts PgBouncer in front of DB_HOST:DB_PORT for the application's role; the monitor's may look at its figures. The
# database has three names, DB_NAME with _session, _transaction and _statement: one for each pool mode. Reads DB_NAME,
# DB_USER, DB_PASS, DB_MONITOR_USER and DB_MONITOR_PASS (passwords from /run/secrets where they are mounted),
# DB_STATEMENT_TIMEOUT, DB_SSLMODE and DB_SSLROOTCERT (TLS to the server; empty: prefer), PGBOUNCER_LISTEN, PGBOUNCER_PORT and the sizes; writes into PGBOUNCER_DIR. Nobody may PAUSE, KILL
# or SHUTDOWN it but who is named in PGBOUNCER_ADMIN_USERS, which the lab and tests set.
set -eu
umask 077
if [ -r /run/secrets/DB_PASS ]; then DB_PASS=$(cat /run/secrets/DB_PASS); fi
if [ -r /run/secrets/DB_MONITOR_PASS ]; then DB_MONITOR_PASS=$(cat /run/secrets/DB_MONITOR_PASS); fi
dir=${PGBOUNCER_DIR:-/tmp}
server="host=$DB_HOST port=$DB_PORT dbname=$DB_NAME"
export PGSSLMODE="${DB_SSLMODE:-prefer}" PGSSLROOTCERT="${DB_SSLROOTCERT:-}"

# What a client asks for when it connects does not get through, and what is SET on a server connection does not outlive
# DISCARD ALL: so the timeout is the role's own, in this database. Who connects directly brings one along.
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
; The pools share the server's connections: all three are this user's.
max_user_connections = $((PGBOUNCER_POOL_SIZE + PGBOUNCER_RESERVE_POOL_SIZE))
max_client_conn = $PGBOUNCER_MAX_CLIENT_CONN
query_wait_timeout = $PGBOUNCER_QUERY_WAIT_TIMEOUT_S
%include /etc/timescale/pgbouncer.ini
EOF
exec pgbouncer "$dir/pgbouncer.ini"
