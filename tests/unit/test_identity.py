"""The name of a process in application_name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolhouse.identity import APPLICATION_NAME_MAX_BYTES, Identity

HOST = "checkout-service-green-5c9f7d8b6d-"
LONGEST_PID = 4_194_304


def test_a_name_consists_of_service_host_and_pid() -> None:
    assert Identity("web", "box-7", 4711).name == "web@box-7:4711"


def test_a_host_name_that_fits_is_not_shortened() -> None:
    host = "h" * (APPLICATION_NAME_MAX_BYTES - len("web@:1"))
    assert Identity("web", host, 1).name == f"web@{host}:1"
    assert Identity("web", host + "h", 1).name != f"web@{host}h:1"


@pytest.mark.parametrize("service", ["web", "s" * 24])
def test_long_host_names_stay_distinct_within_63_bytes(service: str) -> None:
    names = [Identity(service, f"{HOST * 3}{tail}", LONGEST_PID).name for tail in ("x2k4q", "x2k4r")]
    assert len(set(names)) == 2
    for name in names:
        assert len(name) == APPLICATION_NAME_MAX_BYTES
        assert name.startswith(f"{service}@checkout-service-")
        assert name.endswith(f":{LONGEST_PID}")


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1), st.integers(1, LONGEST_PID))
def test_the_server_never_truncates_a_name(host: str, pid: int) -> None:
    name = Identity("a-service.of_24_letters_", host, pid).name
    assert len(name.encode()) <= APPLICATION_NAME_MAX_BYTES
    assert name.endswith(f":{pid}")
