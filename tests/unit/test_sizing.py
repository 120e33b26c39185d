"""Pool sizes: the formulas at known values, and properties of every advice."""

import random
from collections.abc import Iterator
from dataclasses import replace
from math import exp, inf, log1p, sqrt

import pytest
from django.core.management.base import BaseCommand
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from config.env import CHECKOUT
from poolhouse.management.commands.db_pool_advise import Command
from poolhouse.measures.histogram import Histogram
from poolhouse.process.pools import PoolState
from poolhouse.reports.report import ProcessReport
from poolhouse.sizing.fleet import CLIENT_MARGIN, Deployment, Fleet, Room, Transactions, advise_fleet, bouncers
from poolhouse.sizing.live import NothingMeasuredError, measure
from poolhouse.sizing.plan import WEB_PROCESSES, Capacity, plan
from poolhouse.sizing.process import TIMEOUT_LEAST_S, TIMEOUT_MOST_S, Threads, advise_process
from poolhouse.sizing.queue import Demand, Holds, Load, Target, pool_for, pool_of
from poolhouse.sizing.report import Advice

TARGET = Target(0.01)

rates = st.floats(0.01, 400)
means_s = st.floats(0.0005, 0.2)
holds = st.builds(Holds, means_s, st.floats(0, 10))
loads = st.builds(Load, rates, holds)
targets = st.builds(Target, st.floats(0.0005, 0.5), st.sampled_from((0.5, 0.9, 0.95, 0.99, 0.999)))
demands = st.builds(Demand, loads, targets, st.floats(1, 3))
more = st.floats(1, 4)


def demand(rate_per_s: float, mean_s: float, cv2: float = 1.0) -> Demand:
    return Demand(Load(rate_per_s, Holds(mean_s, cv2)), TARGET)


# The queue.


@pytest.mark.parametrize(("connections", "in_use", "probability"), [(1, 0.5, 0.5), (2, 1, 1 / 3), (3, 2, 4 / 9)])
def test_erlang_c_equals_published_values(connections: int, in_use: float, probability: float) -> None:
    assert pool_of(Load(in_use, Holds(1.0)), connections).wait_probability == pytest.approx(probability)


def test_one_connection_follows_pollaczek_and_khinchin() -> None:
    for cv2 in (0, 0.5, 1, 4):
        pool = pool_of(Load(0.8, Holds(1.0, cv2)), 1)
        assert pool.mean_wait_s == pytest.approx((1 + cv2) / 2 * 0.8 / 0.2)


def test_wait_quantile_and_exceeding_share_are_inverse() -> None:
    pool = pool_of(Load(2.4, Holds(1.0)), 3)
    assert pool.share_above(0.5) == pytest.approx(pool.wait_probability * exp(-0.6 * 0.5))
    assert pool.share_above(pool.wait_s(0.95)) == pytest.approx(0.05, rel=1e-4)
    assert pool.wait_s(1 - pool.wait_probability - 0.01) == 0


def test_an_overloaded_pool_has_infinite_waits() -> None:
    pool = pool_of(Load(3, Holds(1.0)), 3)
    assert (pool.is_stable, pool.mean_wait_s, pool.wait_s(0.5), pool.keeps(Target(1e9))) == (False, inf, inf, False)


@given(loads, targets, more)
def test_more_load_never_needs_fewer_connections(load: Load, target: Target, factor: float) -> None:
    needed = pool_for(load, target).connections
    assert pool_for(load.times(factor), target).connections >= needed
    longer = Load(load.rate_per_s, Holds(load.holds.mean_s * factor, load.holds.cv2))
    assert pool_for(longer, target).connections >= needed
    assert needed > load.in_use


@given(loads, targets)
def test_the_chosen_pool_is_the_smallest_that_meets_the_target(load: Load, target: Target) -> None:
    pool = pool_for(load, target)
    assert pool.wait_s(target.share) <= target.wait_s * (1 + 1e-5)
    if pool.connections > 1:
        assert pool_of(load, pool.connections - 1).wait_s(target.share) > target.wait_s * (1 - 1e-5)


@given(loads, st.integers(1, 40))
def test_one_more_connection_never_makes_a_caller_wait_longer(load: Load, connections: int) -> None:
    for share in (0.5, 0.95, 0.99):
        assert pool_of(load, connections + 1).wait_s(share) <= pool_of(load, connections).wait_s(share) * (1 + 1e-5)


@given(targets, st.integers(1, 4))
def test_pools_in_a_row_share_a_target_so_that_it_adds_up(target: Target, stages: int) -> None:
    part = target.split(stages)
    assert part.wait_s * stages == pytest.approx(target.wait_s)
    assert (1 - part.share) * stages == pytest.approx(1 - target.share)


# Hold times.


def test_measured_hold_times_equal_those_recorded() -> None:
    chance, counted = random.Random(1), Histogram()
    for _ in range(20_000):
        counted.record(chance.expovariate(50))
    found = Holds.measured(counted)
    assert found.mean_s == pytest.approx(0.02, rel=0.02)
    assert found.cv2 == pytest.approx(1, rel=0.05)


def test_equal_hold_times_have_no_variation() -> None:
    counted = Histogram()
    for _ in range(100):
        counted.record(0.02)
    found = Holds.measured(counted)
    assert found.mean_s == pytest.approx(0.02)
    assert found.cv2 == pytest.approx(0, abs=1e-9)


@given(st.floats(0.001, 1), st.floats(0, 2))
def test_a_log_normal_distribution_follows_from_its_mean_and_p95(mean_s: float, cv2: float) -> None:
    sigma = sqrt(log1p(cv2))
    p95_s = mean_s * exp(1.6449 * sigma - sigma**2 / 2)
    assert Holds.log_normal(mean_s, p95_s).cv2 == pytest.approx(cv2, abs=1e-4)


@pytest.mark.parametrize("p95_s", [0.005, 0.05])
def test_a_p95_that_no_log_normal_distribution_has_is_rejected(p95_s: float) -> None:
    with pytest.raises(ValueError, match=r"with a mean of 10 ms, expected a p95 from 10 to 38\.\d+ ms, got \d+ ms"):
        Holds.log_normal(0.01, p95_s)


# A process.


def test_each_number_has_its_reason_with_figures() -> None:
    advised = advise_process(demand(60, 0.025))
    size, least, overflow, timeout = advised.settings
    assert (size.value, least.value, overflow.value, timeout.value) == (5, 4, 0, 2)
    assert size.reason == (  # Erlang's C is 0.0907, and ln(0.0907 / 0.05) * 25 ms / (5 - 2.25) is 5.4 ms
        "60 checkouts/s × 25 ms = 1.5 in use (Little's law), 2.25 in a burst of 1.5 × the load; then, with 5, p95 wait "
        "is 5.4 ms, with 4 it is 22 ms"
    )
    assert least.reason.startswith(
        "opened at the start: they meet the target at the usual load; a burst opens the others"
    )
    assert overflow.reason.startswith("an overflow connection is opened for one checkout and closed at check-in")
    assert timeout.reason.startswith("seconds; in a burst only 1 of 10,000 callers waits longer than ")


def test_without_bursts_the_pool_is_that_of_the_usual_load() -> None:
    advised = advise_process(Demand(Load(60, Holds(0.025)), TARGET, burst=1))
    assert (advised.size, advised.least) == (4, 4)
    assert advised.settings[0].reason == (  # Erlang's C is 0.0746, and ln(0.0746 / 0.05) * 25 ms / (4 - 1.5) is 4.0 ms
        "60 checkouts/s × 25 ms = 1.5 in use (Little's law); with 4, p95 wait is 4.0 ms, with 3 it is 26 ms"
    )
    assert advised.settings[1].reason == "opened at the start: the usual load needs all of them"


def test_with_a_connection_for_each_thread_no_caller_waits() -> None:
    advised = advise_process(demand(60, 0.025), Threads(3))
    assert (advised.size, advised.most, advised.wait_s(0.999)) == (3, 3, 0.0)
    assert "3 threads can use at most 3, so no caller waits" in advised.settings[0].reason


def test_threads_that_hold_two_connections_cannot_deadlock() -> None:
    advised = advise_process(demand(1, 0.001), Threads(8, 2))
    assert advised.size == 9
    assert "1 would meet the target, but 8 threads × 2 connections need 8 × (2 − 1) + 1" in advised.settings[0].reason


def test_a_load_above_the_threads_is_a_warning() -> None:
    (warning,) = advise_process(demand(100, 0.1), Threads(8)).warnings
    assert warning.startswith("8 threads can use 8 connections, and the load needs 10: ")
    assert "can use" not in advise_process(demand(100, 0.1)).warnings[0]


@given(demands, st.none() | st.builds(Threads, st.integers(1, 64), st.integers(1, 3)))
def test_the_advice_for_any_process_keeps_its_limits_and_target(asked: Demand, threads: Threads | None) -> None:
    advised = advise_process(asked, threads)
    assert 1 <= advised.least <= advised.size == advised.most
    assert TIMEOUT_LEAST_S <= advised.timeout_s <= TIMEOUT_MOST_S
    if threads:
        assert threads.least <= advised.size <= advised.most <= threads.most
    if not threads or advised.size < threads.most:
        assert pool_of(asked.load.times(asked.burst), advised.size).keeps(asked.target)
        assert pool_of(asked.load, advised.least).keeps(asked.target)


# The fleet, and plans.

fleets = st.builds(Fleet, st.integers(1, 20), st.integers(1, 16), st.integers(0, 5), st.integers(1, 8))
deployments = st.builds(
    Deployment,
    fleets,
    st.builds(Room, st.integers(20, 2000), st.integers(0, 10)),
    st.builds(Transactions, st.integers(1, 10), st.none() | st.floats(0.0005, 0.05)),
)
capacities = st.builds(Capacity, st.integers(50, 10_000), st.floats(100, 50_000))
small_loads = st.builds(Load, st.floats(0.01, 50), st.builds(Holds, st.floats(0.0005, 0.05), st.floats(0, 10)))
small_demands = st.builds(Demand, small_loads, targets, st.floats(1, 3))


@pytest.mark.parametrize(
    ("max_connections", "verdict"), [(200, "direct"), (100, "tight"), (80, "due"), (40, "too small")]
)
def test_pgbouncer_is_needed_when_the_fleet_exceeds_the_usable_connections(max_connections: int, verdict: str) -> None:
    process = advise_process(demand(60, 0.025))
    advised = advise_fleet(process, Deployment(Fleet(4, 4, 2, 4), Room(max_connections, 3)))
    assert (advised.kept, advised.most) == (16 * 4 + 12, 16 * 5 + 12)
    assert advised.verdict == verdict
    assert f"{advised.most}" in advised.reason
    env = "\n".join(Advice(process, advised).env_lines())
    assert env.startswith("DB_MAX_CONNS=5\nDB_MIN_CONNS=4\nDB_MAX_OVERFLOW=0\nDB_POOL_TIMEOUT=2")
    assert ("\nUSE_PGBOUNCER=true\nPGBOUNCER_POOL_SIZE=" in env) == (verdict in ("due", "too small"))


def test_pgbouncer_keeps_the_target_in_a_burst_without_a_reserve() -> None:
    tier = bouncers(demand(1200, 0.025), clients=100, room=97)
    in_burst = pool_of(tier.demand.load.times(1.5), tier.default_pool_size)
    assert in_burst.keeps(TARGET)
    assert not pool_of(in_burst.load, tier.default_pool_size - 1).keeps(TARGET)
    size, reserve, most, _ = tier.settings
    assert (reserve.value, most.value) == (0, size.value)
    assert size.reason.startswith(
        "1,200 transactions/s × 25 ms = 30 in use, 45 in a burst of 1.5 × the load; p95 wait of the transactions "
    )


def test_transactions_shorter_than_their_checkout_need_fewer_connections() -> None:
    process, fleet, room = advise_process(demand(60, 0.025)), Fleet(4, 4), Room(100, 3)
    whole, short = (
        advise_fleet(process, Deployment(fleet, room, transactions)).bouncer
        for transactions in (Transactions(), Transactions(each=3, mean_s=0.002))
    )
    assert short.demand.load.rate_per_s == 3 * whole.demand.load.rate_per_s
    assert short.most < whole.most / 2


@given(small_demands, st.integers(1, 500), st.integers(0, 500), st.integers(1, 8))
def test_pgbouncer_opens_no_more_than_usable_or_its_clients(
    asked: Demand, clients: int, room: int, instances: int
) -> None:
    tier = bouncers(asked, clients=clients, room=room, instances=instances)
    assert tier.most == instances * tier.max_db_connections <= room
    assert tier.max_db_connections * instances <= clients + instances - 1
    assert tier.max_client_conn * instances >= clients * CLIENT_MARGIN
    assert tier.is_enough == (tier.most == tier.needed)


@settings(deadline=None, max_examples=60)
@given(small_demands, deployments, capacities, st.lists(st.integers(1, 5_000), min_size=1, max_size=4))
def test_the_tiers_of_a_plan_add_up(
    asked: Demand, deployment: Deployment, capacity: Capacity, sizes: list[int]
) -> None:
    process, others = advise_process(asked), deployment.fleet.other_connections
    for row in plan(process, deployment, capacity, sizes):
        clients = row.web_processes * process.most
        assert row.direct == clients + others
        assert (row.central is None) == (row.direct <= deployment.room.usable)
        if row.central is None:
            continue
        assert row.central.most <= deployment.room_for_web
        assert row.fits == (row.needed == row.server_connections <= deployment.room.usable)
        assert capacity.clients * row.central.instances >= row.central.clients
        assert capacity.transactions_per_s * row.central.instances >= row.central.demand.load.rate_per_s
        into_server_tier = clients
        if row.sidecar:
            assert row.sidecar.instances == row.hosts
            assert row.sidecar.max_client_conn * row.hosts >= clients
            into_server_tier = row.sidecar.most
        assert row.central.max_client_conn * row.central.instances >= into_server_tier


@settings(deadline=None, max_examples=60)
@given(small_demands, deployments, capacities, st.integers(1, 3_000), more)
def test_more_web_processes_never_need_fewer_connections(
    asked: Demand, deployment: Deployment, capacity: Capacity, size: int, factor: float
) -> None:
    larger = int(size * factor)
    assume(larger > size)
    one, other = plan(advise_process(asked), deployment, capacity, (size, larger))
    assert (one.direct, one.hosts) < (other.direct, other.hosts + 1)
    if one.central and other.central:
        assert one.needed <= other.needed


def test_a_plan_goes_from_direct_to_one_tier_to_two() -> None:
    process = advise_process(demand(5, 0.004))
    rows = plan(process, Deployment(Fleet(1, 8), Room(500, 3), Transactions()))
    assert [row.web_processes for row in rows] == list(WEB_PROCESSES)
    assert [row.way for row in rows] == ["direct", "direct", "central", "sidecars and central"]
    assert all(row.fits for row in rows)
    assert rows[-1].sidecar is not None
    assert rows[-1].sidecar.instances == 1_250


# The manual.


def test_the_manual_has_every_option_and_every_key() -> None:
    manual = (CHECKOUT / "docs/sizing-reference.md").read_text()
    parser = Command().create_parser("manage.py", "db_pool_advise")
    own = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    django_s = {option for action in BaseCommand().create_parser("", "")._actions for option in action.option_strings}
    assert {option for option in own - django_s if f"`{option}`" not in manual} == set()
    process = advise_process(demand(60, 0.025), Threads(8))
    deployment = Deployment(Fleet(), Room(100, 3))
    rows = tuple(plan(process, deployment))
    document = Advice(process, advise_fleet(process, deployment), None, 8, rows).as_document()
    assert {key for key in keys_of(document) if f"`{key}`" not in manual} == set(), "docs/sizing-reference.md, JSON"


def keys_of(data: object) -> Iterator[str]:
    for key, value in data.items() if isinstance(data, dict) else ():
        yield key
        yield from keys_of(value)
    for value in data if isinstance(data, list) else ():
        yield from keys_of(value)


# What was measured.


def report(pid: int, at: float, holds_s: list[float], *, service: str = "web", timeouts: int = 0) -> ProcessReport:
    held = Histogram()
    for one in holds_s:
        held.record(one)
    counts = {"lent": len(holds_s), "timeouts": timeouts}
    pool = PoolState("default", "any", "queuepool", 5, 10, 0, 0, 0, counts=counts, wait=Histogram(), hold=held)
    return ProcessReport(f"{service}@box:{pid}", service, "box", pid, 1.0, at, (pool,))


def test_the_load_is_the_busiest_process_and_hold_times_the_service() -> None:
    before = [report(1, 10.0, [9.0]), report(2, 10.0, []), report(3, 10.0, [], service="worker")]
    after = [
        report(1, 20.0, [9.0] + [0.01] * 100, timeouts=20),
        report(2, 20.0, [0.03] * 50),
        report(3, 20.0, [0.5] * 10, service="worker"),
        report(4, 20.0, [1.0] * 5000),  # it began in between
    ]
    found = measure(before, after, alias="default")
    assert (found.service, found.process, found.processes, found.hosts) == ("web", "web@box:1", 2, 1)
    assert (found.checkouts, found.elapsed_s, found.connections) == (100, 10.0, 10)
    assert found.load.rate_per_s == 12, "those who got none in time asked as well"
    assert found.load.holds.mean_s == pytest.approx((100 * 0.01 + 50 * 0.03) / 150)
    assert measure(before, after, alias="default", service="worker").load.rate_per_s == 1


@pytest.mark.parametrize(
    ("after", "alias", "service", "problem"),
    [
        (
            [report(1, 20.0, [0.1])],
            "default",
            "api",
            "no process of the service 'api' is reporting; reporting services: web",
        ),
        ([report(1, 20.0, [0.1])], "other", None, "no process reported wait and hold times of 'other' twice"),
        ([report(1, 10.0, [0.1])], "default", None, "no process reported wait and hold times of 'default' twice"),
        ([report(1, 20.0, [])], "default", None, "no connection of 'default' was checked out and in within 10 s"),
        ([], "default", None, "no process reported wait and hold times of 'default' twice"),
    ],
)
def test_a_load_that_cannot_be_measured_is_an_error_with_the_reason(
    after: list[ProcessReport], alias: str, service: str | None, problem: str
) -> None:
    with pytest.raises(NothingMeasuredError, match=problem):
        measure([report(1, 10.0, [])], after, alias=alias, service=service)


def with_peak(pid: int, at: float, peak: int) -> ProcessReport:
    made = report(pid, at, [0.5] * int(at))
    return replace(made, pools=(replace(made.pools[0], peak=peak),))


@pytest.mark.parametrize(("peaks", "bound"), [((4, 3), 4), ((4, 10), None), ((0, 0), None)])
def test_the_measured_peak_is_a_limit_unless_a_pool_was_exhausted(peaks: tuple[int, int], bound: int | None) -> None:
    before, after = ([with_peak(pid, at, peak) for pid, peak in enumerate(peaks)] for at in (10.0, 20.0))
    assert measure(before, after, alias="default").peak == bound


def test_with_unknown_threads_the_measured_peak_limits_the_pool_with_a_warning() -> None:
    busy = Demand(Load(100, Holds(0.035, 4.0)), Target(0.01, 0.95), 1.5)
    unbounded = advise_process(busy)
    assert unbounded.size > 4
    assert "pass --threads" in unbounded.warnings[0]
    seen = advise_process(busy, Threads(4, are_known=False))
    assert (seen.size, seen.timeout_s) == (4, 2)
    assert "the 4 callers seen at once" in seen.settings[0].reason
    assert "pass --threads" in seen.warnings[0]
    assert "limited to the 4 connections that were in use at once" in seen.warnings[0]
    assert not any("--threads" in warning for warning in advise_process(busy, Threads(4)).warnings)
