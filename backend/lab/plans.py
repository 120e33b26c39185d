"""How strategies are compared: the question, the plans, and the settings that the report shows first."""

from config.strategies import STRATEGIES
from lab.matrix import Block, Plan
from lab.summary import Setting
from lab.workloads import WORKLOADS

QUESTION = "How many requests does a web server answer, how fast and how reliably, with each connection strategy?"

HEADLINE = Setting("gthread", "one")
"""the setting in which strategies are compared by one number"""
HEADLINE_CLIENTS = 16
EXHAUSTION = Setting("gevent", "think")
"""the setting in which only the pools limit concurrent queries; reported at its largest number of clients"""

_ALL = tuple(STRATEGIES)
_HEADLINE = Block((HEADLINE.model,), (HEADLINE.workload,), (HEADLINE_CLIENTS,))
PLANS = {
    "headline": Plan(_ALL, (_HEADLINE,), rounds=7, turn_s=1.0),
    "quick": Plan(_ALL, (_HEADLINE, Block((EXHAUSTION.model,), (EXHAUSTION.workload,), (512,))), rounds=1, turn_s=0.6),
    "full": Plan(
        _ALL,
        (
            Block(("sync", "gthread"), tuple(WORKLOADS), (8, 32, 128)),
            # These servers limit nothing themselves, so it takes more clients to see what does.
            Block(("gevent", "asgi"), tuple(WORKLOADS), (8, 64, 512)),
        ),
        rounds=3,
        turn_s=1.2,
    ),
}
