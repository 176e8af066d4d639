"""memcached's own words on one side, Prometheus' on the other.

memcached tells about itself with the command `stats` on its port: lines such as `STAT cmd_get 7`. Prometheus asks
`GET /metrics` and wants `memcached_commands_total{command="get"} 7`, with a type. This program stands between the two, in
memcached's Pod, so that it reaches it at localhost. Nothing is kept here: each question of one is a question to the other.
"""

import http.server
import os
import signal
import socket
import sys

MEMCACHED = ("localhost", int(os.environ.get("MEMCACHED_PORT", "11211")))
LISTEN = ("", int(os.environ.get("LISTEN_PORT", "9150")))

# memcached's name: Prometheus' name, type, and what it counts.
METRICS = {
    "uptime": ("memcached_uptime_seconds", "counter", "Time since the start."),
    "curr_connections": ("memcached_current_connections", "gauge", "Connections now, this adapter's included."),
    "curr_items": ("memcached_current_items", "gauge", "Items kept now."),
    "total_items": ("memcached_items_total", "counter", "Items ever stored."),
    "bytes": ("memcached_current_bytes", "gauge", "Bytes that items take now."),
    "limit_maxbytes": ("memcached_limit_bytes", "gauge", "Bytes that items may take."),
    "evictions": ("memcached_items_evicted_total", "counter", "Items dropped to make room."),
    "cmd_get": ('memcached_commands_total{command="get"}', "counter", "Commands, by kind."),
    "cmd_set": ('memcached_commands_total{command="set"}', "counter", "Commands, by kind."),
    "get_hits": ('memcached_gets_total{result="hit"}', "counter", "Keys asked for, by result."),
    "get_misses": ('memcached_gets_total{result="miss"}', "counter", "Keys asked for, by result."),
}


def read_stats():
    """What memcached says of itself: name to value, both text."""
    with socket.create_connection(MEMCACHED, timeout=2) as connection:
        connection.sendall(b"stats\r\nquit\r\n")
        lines = connection.makefile("r", encoding="ascii").read().splitlines()
    words = [line.split(" ", 2) for line in lines if line.startswith("STAT ")]
    return {name: value for _, name, value in words}


def to_prometheus(stats):
    lines, described = [], set()
    for theirs, (ours, kind, what) in METRICS.items():
        family = ours.partition("{")[0]
        if family not in described:
            described.add(family)
            lines += [f"# HELP {family} {what}", f"# TYPE {family} {kind}"]
        lines.append(f"{ours} {stats[theirs]}")
    return lines


class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/metrics":
            self.send_error(404, "there is only /metrics")
            return
        # A memcached that does not answer is a fact to report, not a failure of the report.
        lines = ["# HELP memcached_up Whether memcached answers.", "# TYPE memcached_up gauge"]
        try:
            lines += ["memcached_up 1", *to_prometheus(read_stats())]
        except OSError as error:
            print(f"memcached at {MEMCACHED[0]}:{MEMCACHED[1]}: {error}")
            lines.append("memcached_up 0")
        body = "\n".join([*lines, ""]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_):
        """Each scrape a line would be noise."""


if __name__ == "__main__":
    # The first process of a container gets no signal that it does not handle: without this line it would be killed, later.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"adapting memcached at {MEMCACHED[0]}:{MEMCACHED[1]} to :{LISTEN[1]}/metrics")
    http.server.ThreadingHTTPServer(LISTEN, Metrics).serve_forever()
