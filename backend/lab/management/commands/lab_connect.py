"""Measure what a connection costs on this machine; docs/lab has published results."""

from lab.management.experiment import ExperimentCommand


class Command(ExperimentCommand):
    """manage.py lab_connect."""

    experiment = "connect"
