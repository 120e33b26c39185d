"""Is anything that was acknowledged lost, or loaded twice, whatever fails meanwhile?

As in Jepsen: a generator makes a schedule from a seed, clients record what they asked and what they were answered,
faults strike what runs, and a checker, a pure function, compares the history with what is in the database, the spool
and the reject files at the end.
"""
