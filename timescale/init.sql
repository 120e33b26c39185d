-- The application's role and its database, and the monitor's role, made once by a superuser.
\getenv role DB_USER
\getenv password DB_PASS
\getenv database DB_NAME
CREATE ROLE :"role" LOGIN PASSWORD :'password';
-- To see the applications and states of other roles' connections.
GRANT pg_monitor TO :"role";
\getenv monitor DB_MONITOR_USER
\getenv monitor_password DB_MONITOR_PASS
-- It needs one connection a look; the limit keeps many who look at once from taking the room they look for.
CREATE ROLE :"monitor" LOGIN PASSWORD :'monitor_password' CONNECTION LIMIT 4;
GRANT pg_monitor, pg_use_reserved_connections TO :"monitor";
CREATE DATABASE :"database" OWNER :"role";
\connect :"database"
CREATE EXTENSION IF NOT EXISTS timescaledb;
