"""This deployment: its settings. Only this package reads the environment."""
