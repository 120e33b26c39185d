"""Attribution of statements to requests and tasks, their costs, and the log lines about them."""
