"""Somebody who looks at a live page, and Prometheus: ``python viewer.py PAGE_PORT METRICS_PORT``.

Fetches what a browser fetches, as fast as it is given, and decodes nothing: a browser is on another device.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time


def follow(port: int) -> None:
    """Updates, for ever."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/events")
    for _ in connection.getresponse():
        pass


def scrape(port: int) -> None:
    """Figures, once a second."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/metrics")
        connection.getresponse().read()
        connection.close()
        time.sleep(1)


def main() -> None:
    """Until it is killed; a line for each picture."""
    page, metrics = map(int, sys.argv[1:])
    for target, port in ((follow, page), (scrape, metrics)):
        threading.Thread(target=target, args=(port,), daemon=True).start()
    connection, known = http.client.HTTPConnection("127.0.0.1", page), ""
    while True:
        connection.request("GET", f"/picture?after={known}")
        content = connection.getresponse().read()
        if content:
            known = json.loads(content[4 : 4 + int.from_bytes(content[:4], "big")])["id"]
            sys.stdout.write(f"{known}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
