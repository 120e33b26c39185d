"""The sandbox without Docker: the servers run from a Debian root folder, and web, worker and beat beside them."""
