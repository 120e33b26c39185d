"""Is acknowledged data lost or loaded twice while services fail?

As in Jepsen: a generator makes a schedule from a seed, clients record their requests and the answers, faults are
injected into the services, and a checker, a pure function, compares the history with the contents of the database, the
spool and the reject files at the end.
"""
