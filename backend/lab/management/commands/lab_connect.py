"""Measures what a connection costs on this machine: `--help` tells how."""

from lab.management.experiment import ExperimentCommand


class Command(ExperimentCommand):
    """manage.py lab_connect."""

    experiment = "connect"
