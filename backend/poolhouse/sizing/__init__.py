"""Pool sizing: the queueing model and the advice that follows from it; nothing here queries a server."""
