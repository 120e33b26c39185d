"""Who a process is, in PostgreSQL's words."""

from poolhouse.identity import Identity


def test_a_name_says_service_host_and_process() -> None:
    assert Identity("web", "box-7", 4711).name == "web@box-7:4711"


def test_a_long_host_is_cut_so_that_the_pid_survives_postgresql_s_63_bytes() -> None:
    name = Identity("web", "h" * 200, 4_194_304).name
    assert len(name) == 63
    assert name.endswith("h:4194304")
