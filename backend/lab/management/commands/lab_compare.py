"""Compares the strategies on this machine: `--help` tells how, docs/lab what came out elsewhere."""

from lab.management.experiment import ExperimentCommand


class Command(ExperimentCommand):
    """manage.py lab_compare."""

    experiment = "strategies"
