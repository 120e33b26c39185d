"""The state of database servers and PgBouncer, queried within a timeout."""
