"""The Python client as its users write it: an informer that prints what it sees, a log, an exec, the way in from a Pod."""

import sys
import threading

from kubernetes import client, config
from kubernetes.informer import ADDED, DELETED, MODIFIED, SharedInformer
from kubernetes.stream import stream


def say(*words):
    print(*words, flush=True)


def informer(core):
    """Prints the ConfigMaps with the label `seen`, with their values, whenever that changes, until its input ends."""
    lock, last = threading.Lock(), [None]
    informer = SharedInformer(core.list_namespaced_config_map, namespace="default", label_selector="seen")

    def show(_):
        with lock:
            maps = sorted(informer.cache.list(), key=lambda item: item.metadata.name)
            seen = " ".join(f"{item.metadata.name}={item.data['value']}" for item in maps)
            if seen != last[0]:
                last[0] = seen
                say("sees", seen)

    for kind in (ADDED, MODIFIED, DELETED):
        informer.add_event_handler(kind, show)
    say("begun")
    informer.start()
    sys.stdin.read()
    informer.stop()


def streams(core):
    for line in core.read_namespaced_pod_log("web", "default", follow=True, _preload_content=False):
        say("log", line.decode().rstrip())
        break
    command = ["sh", "-c", "read line; echo got $line; echo oops >&2; exit 7"]
    session = stream(core.connect_get_namespaced_pod_exec, "web", "default", command=command, stdin=True, stdout=True,
                     stderr=True, tty=False, _preload_content=False)
    session.write_stdin("word\n")
    session.run_forever(timeout=20)
    say("exec", session.read_stdout().strip(), session.read_stderr().strip(), session.returncode)


def objects(core):
    body = client.V1Pod(
        metadata=client.V1ObjectMeta(name="made", labels={"by": "python"}),
        spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="busybox:stable", command=["sleep", "9"])]),
    )
    core.create_namespaced_pod("default", body)
    core.patch_namespaced_pod("made", "default", {"metadata": {"labels": {"more": "yes"}}})
    labels = core.read_namespaced_pod("made", "default").metadata.labels
    say("made", labels["by"], labels["more"])
    try:
        core.create_namespaced_pod("default", body)
    except client.ApiException as error:
        say("refused", error.status, error.reason)
    core.delete_namespaced_pod("made", "default", grace_period_seconds=0)


if __name__ == "__main__":
    config.load_kube_config()
    {"informer": informer, "streams": streams, "objects": objects}[sys.argv[1]](client.CoreV1Api())
