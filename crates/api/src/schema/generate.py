#!/usr/bin/env python3
"""Writes schema.txt: how Kubernetes' types merge, from the definitions that Kubernetes publishes.

Usage: generate.py _definitions.json > schema.txt. The package kubernetes-validate (PyPI) carries the file.
"""
import json
import sys

KINDS = """
core.v1: Binding ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod PodTemplate
core.v1: ResourceQuota Secret Service ServiceAccount
apps.v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet
batch.v1: CronJob Job
coordination.v1: Lease
discovery.v1: EndpointSlice
events.v1: Event
networking.v1: Ingress IngressClass NetworkPolicy
node.v1: RuntimeClass
policy.v1: Eviction PodDisruptionBudget
rbac.v1: ClusterRole ClusterRoleBinding Role RoleBinding
scheduling.v1: PriorityClass
storage.v1: StorageClass
"""
API = "io.k8s.api."
definitions = json.load(open(sys.argv[1]))["$defs"]


def short(name):
    """core.v1.Pod is Pod; other groups keep their name."""
    if name.startswith(API):
        name = name[len(API):]
        return name[len("core.v1."):] if name.startswith("core.v1.") else name
    return name.rsplit(".", 1)[-1]


def target(schema):
    ref = schema.get("$ref") or next((part["$ref"] for part in schema.get("allOf", []) if "$ref" in part), None)
    return ref.rsplit("/", 1)[-1] if ref else None


def is_struct(name):
    return name is not None and "properties" in definitions[name]


def element(schema):
    name = target(schema)
    if not is_struct(name):
        return ""
    atomic = definitions[name].get("x-kubernetes-map-type") == "atomic"
    return short(name) + ("!" if atomic else "")


# Defaults of keys, which these definitions leave out.
DEFAULTS = {"protocol": "TCP"}


def keys_of(schema):
    keys = sorted(schema["x-kubernetes-list-map-keys"])
    return ",".join(f"{key}={DEFAULTS[key]}" if key in DEFAULTS else key for key in keys)


def rule(schema):
    name = target(schema)
    atomic = schema.get("x-kubernetes-map-type") == "atomic"
    if name:
        if not is_struct(name):
            return None
        atomic = atomic or definitions[name].get("x-kubernetes-map-type") == "atomic"
        return short(name) + ("!" if atomic else "")
    kind = schema.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind):
        values = schema.get("additionalProperties")
        if not values:
            return None
        return "{" + element(values) + "}" + ("!" if atomic else "")
    if kind == "array" or (isinstance(kind, list) and "array" in kind):
        items = schema["items"]
        how = schema.get("x-kubernetes-list-type", "atomic")
        apply = {"map": lambda: keys_of(schema), "set": lambda: "*", "atomic": lambda: "!"}[how]()
        merges = "merge" in (schema.get("x-kubernetes-patch-strategy") or "").split(",")
        patch = "!"
        if merges:
            patch = schema.get("x-kubernetes-patch-merge-key", "*")
        inner = apply if apply == patch else f"{apply}|{patch}"
        return None if inner == "!" else f"[{inner}]{element(items)}"
    # A text, a number or a flag.
    return None


lines, todo, seen = {}, [], set()
roots = []
for line in KINDS.strip().splitlines():
    group, names = line.split(": ")
    roots += [f"{API}{group}.{name}" for name in names.split()]
todo = list(roots)
while todo:
    name = todo.pop()
    if name in seen:
        continue
    seen.add(name)
    fields = []
    for field, schema in sorted(definitions[name].get("properties", {}).items()):
        values = schema.get("additionalProperties")
        below = [schema, schema.get("items") or {}, values if isinstance(values, dict) else {}]
        nested = next(filter(None, map(target, below)), None)
        text = rule(schema)
        if text:
            fields.append(f"{field}:{text}")
            if is_struct(nested):
                todo.append(nested)
    lines[short(name)] = fields
print("# Written by generate.py from Kubernetes' definitions. A field that does not stand here is a value to be taken as a")
print("# whole. `T` a struct, `{T}` a map, `[key]T` a list by key, `[*]` a set; `!` taken as a whole by server-side apply;")
print("# after `|` what strategic merge patch does where it differs.")
for name in sorted(lines):
    if lines[name]:
        print(name + " " + " ".join(lines[name]))
