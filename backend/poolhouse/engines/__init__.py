"""Database engines that tell what their pools do."""
