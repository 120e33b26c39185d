"""This deployment of the sandbox: its settings, and the only readers of the environment."""
