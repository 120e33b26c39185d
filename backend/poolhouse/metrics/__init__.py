"""What Prometheus asks: the pools of the whole fleet, and the room on the server. It needs `prometheus_client`."""
