"""The sandbox without Docker: the servers from one Debian root folder, and the services beside them."""
