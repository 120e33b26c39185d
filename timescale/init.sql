-- The roles of the application and the monitor, and the database; run once by a superuser.
\getenv role DB_USER
\getenv password DB_PASS
\getenv database DB_NAME
CREATE ROLE :"role" LOGIN PASSWORD :'password';
-- pg_monitor shows application_name and state of other roles' connections.
GRANT pg_monitor TO :"role";
\getenv monitor DB_MONITOR_USER
\getenv monitor_password DB_MONITOR_PASS
-- Each status query needs one connection. The limit keeps many concurrent ones from filling the server themselves.
CREATE ROLE :"monitor" LOGIN PASSWORD :'monitor_password' CONNECTION LIMIT 4;
GRANT pg_monitor, pg_use_reserved_connections TO :"monitor";
CREATE DATABASE :"database" OWNER :"role";
\connect :"database"
CREATE EXTENSION IF NOT EXISTS timescaledb;
