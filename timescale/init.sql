-- The application's role and its database, made once by a superuser.
\getenv role DB_USER
\getenv password DB_PASS
\getenv database DB_NAME
CREATE ROLE :"role" LOGIN PASSWORD :'password';
-- To see the applications and states of other roles' connections.
GRANT pg_monitor TO :"role";
CREATE DATABASE :"database" OWNER :"role";
\connect :"database"
CREATE EXTENSION IF NOT EXISTS timescaledb;
