"""What the database server and PgBouncer say, each asked within a time."""
