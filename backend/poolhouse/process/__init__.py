"""What this process knows of its own pools, and who looks after them."""
