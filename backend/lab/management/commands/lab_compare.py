"""Compare the connection strategies on this machine; docs/lab has published results."""

from lab.management.experiment import ExperimentCommand


class Command(ExperimentCommand):
    """manage.py lab_compare."""

    experiment = "strategies"
