"""Elects a leader among the replicas of an application, and tells the application at http://localhost:4040/.

The office is a Lease object: who is named in it leads, as long as it is renewed. Three rules make it safe:

1. A Lease is written with the resourceVersion that was read. If somebody else wrote in between, the API answers 409 Conflict:
   of two that take an office at once one learns that it came too late.
2. Clocks are not compared. A candidate takes the office when it has seen no change of the Lease for as long as that lasts, by
   its own clock.
3. A leader that cannot renew resigns before others may take over: after RENEW_WITHIN, which is shorter than DURATION.

When the Pod ends in order, the application is gone before this sidecar is asked to end; then the office is given back, and
the next one need not wait.
"""

import datetime
import http.server
import json
import os
import signal
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request

NAME = os.environ["POD_NAME"]
LEASE = os.environ["LEASE"]
DURATION, RENEW_WITHIN, RETRY = 5.0, 3.0, 0.5  # seconds

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
NAMESPACE = open(f"{ACCOUNT}/namespace", encoding="ascii").read()
SERVER = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
LEASES = f"{SERVER}/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
TRUST = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")


def call(method, url, body=None):
    """Asks the API, as the Pod's ServiceAccount. The token is read each time, because it is renewed."""
    request = urllib.request.Request(url, method=method, data=json.dumps(body).encode() if body else None)
    request.add_header("Authorization", "Bearer " + open(f"{ACCOUNT}/token", encoding="ascii").read())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, context=TRUST, timeout=RENEW_WITHIN / 2) as answer:
        return json.load(answer)


class Election:
    def __init__(self):
        self.seen = None  # the Lease's resourceVersion, and
        self.seen_at = 0.0  # when it was first seen
        self.leader = ""
        self.leads_until = 0.0

    def leading(self):
        return time.monotonic() < self.leads_until

    def run_for_office(self):
        """One round: read, and renew or take if that is right."""
        began = time.monotonic()
        try:
            lease = call("GET", f"{LEASES}/{LEASE}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            new = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE}}
            lease = call("POST", LEASES, new | {"spec": self.claim({})})
            self.won(lease, began)
            return
        holder = lease["spec"].get("holderIdentity") or ""
        if lease["metadata"]["resourceVersion"] != self.seen:
            self.seen, self.seen_at = lease["metadata"]["resourceVersion"], began
        duration = lease["spec"].get("leaseDurationSeconds", DURATION)
        if holder in ("", NAME) or began - self.seen_at > duration:
            lease["spec"] = self.claim(lease["spec"])
            self.won(call("PUT", f"{LEASES}/{LEASE}", lease), began)
        else:
            self.leader = holder

    def claim(self, spec):
        """What the Lease says when it is ours, after `spec`."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        claimed = spec | {"holderIdentity": NAME, "leaseDurationSeconds": int(DURATION), "renewTime": now}
        if spec.get("holderIdentity") != NAME:
            claimed |= {"acquireTime": now, "leaseTransitions": spec.get("leaseTransitions", -1) + 1}
        return claimed

    def won(self, lease, began):
        if not self.leading():
            print(f"{NAME} leads, as number {lease['spec']['leaseTransitions']}")
        self.seen, self.seen_at = lease["metadata"]["resourceVersion"], began
        self.leader = NAME
        # Counted from before the request: the API has seen it no earlier.
        self.leads_until = began + RENEW_WITHIN

    def give_back(self):
        if not self.leading():
            return
        self.leads_until = 0.0
        lease = call("GET", f"{LEASES}/{LEASE}")
        if lease["spec"].get("holderIdentity") == NAME:
            lease["spec"]["holderIdentity"] = ""
            call("PUT", f"{LEASES}/{LEASE}", lease)
            print(f"{NAME} has given the office back")


ELECTION = Election()


class Answer(http.server.BaseHTTPRequestHandler):
    """200 for the leader, 503 for the others; who it is stands in the answer."""

    def do_GET(self):
        leading = ELECTION.leading()
        body = json.dumps({"leading": leading, "leader": ELECTION.leader, "me": NAME}).encode() + b"\n"
        self.send_response(200 if leading else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_):
        """The application asks often."""


def end(*_):
    raise SystemExit


def main():
    signal.signal(signal.SIGTERM, end)
    # For the application only: not on the Pod's address.
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 4040), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        while True:
            try:
                ELECTION.run_for_office()
            except urllib.error.HTTPError as error:
                # 409: another one wrote it first. The next round reads who.
                print(f"{NAME}: the API answers {error.code}" + (": another one was faster" if error.code == 409 else ""))
            except OSError as error:
                print(f"{NAME}: the API is not reached: {error}")
            time.sleep(RETRY)
    finally:
        ELECTION.give_back()


if __name__ == "__main__":
    sys.exit(main())
