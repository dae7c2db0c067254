"""What the loop counts, and the endpoint that Prometheus scrapes."""
