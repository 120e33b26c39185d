"""What every test shares beside tests/plugin.py."""

import pytest

from sandbox.servers import Place


@pytest.fixture(scope="session")
def django_db_setup(servers: Place, django_db_setup: None) -> None:
    """Start the servers before pytest-django makes its database on them."""
