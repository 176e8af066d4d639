//! The table: each field of a Pod, with what this engine does with it. Each field that Kubernetes has stands here.

use serde_json::Value;

use super::{Row, Support};

const fn yes(field: &'static str, note: &'static str) -> Row {
    Row { field, support: Support::Yes, note }
}

const fn no(field: &'static str) -> Row {
    Row { field, support: Support::No, note: "" }
}

const fn no_because(field: &'static str, note: &'static str) -> Row {
    Row { field, support: Support::No, note }
}

const fn not_even_empty(field: &'static str) -> Row {
    Row { field, support: Support::NotEvenEmpty, note: "" }
}

const fn fields(field: &'static str, rows: &'static [Row]) -> Row {
    Row { field, support: Support::Fields(rows), note: "" }
}

const fn items(field: &'static str, rows: &'static [Row]) -> Row {
    Row { field, support: Support::Items(rows), note: "" }
}

const fn keys(field: &'static str, rows: &'static [Row]) -> Row {
    Row { field, support: Support::Keys(rows), note: "" }
}

const fn unless(field: &'static str, objection: fn(&Value, &Value) -> Option<&'static str>, note: &'static str) -> Row {
    Row { field, support: Support::Unless(objection), note }
}

const fn dropped(field: &'static str, note: &'static str) -> Row {
    Row { field, support: Support::Dropped, note }
}

pub(super) const POD: &[Row] = &[
    yes("apiVersion", ""),
    yes("kind", ""),
    fields("metadata", METADATA),
    fields("spec", SPEC),
    dropped("status", "written by the engine alone"),
];

const METADATA: &[Row] = &[
    yes("name", "also the host name, up to 63 characters of it"),
    yes("generateName", ""),
    yes("namespace", ""),
    yes("labels", ""),
    yes("annotations", "kept and shown; the deprecated ones of AppArmor become fields, as in Kubernetes"),
    yes("finalizers", "containers stop; the object stays until the list is empty"),
    items("ownerReferences", OWNER),
    dropped("uid", "set by the server"),
    dropped("resourceVersion", "set by the server; on an update it must match"),
    dropped("generation", "set by the server"),
    dropped("creationTimestamp", "set by the server"),
    dropped("deletionTimestamp", "set by the server"),
    dropped("deletionGracePeriodSeconds", "set by the server"),
    dropped("managedFields", "set by the server"),
    dropped("selfLink", "no longer used by Kubernetes"),
];

const OWNER: &[Row] = &[
    yes("apiVersion", ""),
    yes("kind", ""),
    yes("name", ""),
    yes("uid", "what an owner owns goes with it"),
    yes("controller", ""),
    yes("blockOwnerDeletion", ""),
];

const SPEC: &[Row] = &[
    items("containers", CONTAINER),
    items("initContainers", CONTAINER),
    items("ephemeralContainers", EPHEMERAL_CONTAINER),
    items("volumes", VOLUME),
    yes("restartPolicy", "`Always`, `OnFailure`, `Never`"),
    yes("terminationGracePeriodSeconds", ""),
    yes("activeDeadlineSeconds", ""),
    yes("hostname", ""),
    yes("subdomain", "`/etc/hosts` gets the full name; a headless Service of that name announces it"),
    yes(
        "setHostnameAsFQDN",
        "needs a `subdomain`; a full name over 64 bytes keeps the Pod from starting, as in Kubernetes",
    ),
    yes("hostnameOverride", ""),
    items("hostAliases", HOST_ALIAS),
    yes("dnsPolicy", ""),
    fields("dnsConfig", DNS_CONFIG),
    yes("nodeName", "this machine's node; a Pod that names it and does not fit fails, as with the kubelet"),
    yes("nodeSelector", "a Pod that does not match the node's labels waits, `Pending`"),
    fields("affinity", AFFINITY),
    items("tolerations", TOLERATION),
    items("topologySpreadConstraints", SPREAD),
    yes("schedulerName", "with another name than `default-scheduler` the Pod waits until that scheduler binds it"),
    items("schedulingGates", &[yes("name", "nothing starts until the list is empty")]),
    no("schedulingGroup"),
    yes("priorityClassName", "`system-node-critical`, `system-cluster-critical`, or a PriorityClass"),
    yes(
        "priority",
        "set by the server; who waits for room gets it in this order, who is evicted goes in the opposite one",
    ),
    yes("preemptionPolicy", "unless it is `Never`, less important Pods are deleted where that makes room"),
    yes("serviceAccountName", "an existing account; its `imagePullSecrets` are taken over, and its token is mounted"),
    yes("serviceAccount", "the old name of `serviceAccountName`"),
    yes("automountServiceAccountToken", "else the account decides; without a word the token is mounted"),
    items("imagePullSecrets", &[yes("name", "a Secret with `.dockerconfigjson` or `.dockercfg`")]),
    yes("enableServiceLinks", "variables for the Services of the namespace that have an address; for the API always"),
    yes("hostNetwork", ""),
    yes("hostPID", "the container sees, and as root may signal, every process of the machine, this engine's too"),
    yes("hostIPC", "with the machine's `/dev/shm`"),
    yes(
        "hostUsers",
        "`false`: 65536 ids of its own; volumes must lie on file systems that can map ids (ext4, xfs, btrfs; tmpfs since \
         Linux 6.3)",
    ),
    yes("shareProcessNamespace", ""),
    fields("securityContext", POD_SECURITY_CONTEXT),
    fields("os", &[yes("name", "anything but `linux` ends as `PodOSNotSupported`")]),
    items("readinessGates", &[yes("conditionType", "a condition that others write into `status`")]),
    yes("runtimeClassName", "an existing RuntimeClass; with another handler than `monopod` no sandbox is made"),
    yes("overhead", "taken from the RuntimeClass"),
    fields("resources", &[keys("requests", POD_AMOUNTS), keys("limits", POD_AMOUNTS), no("claims")]),
    no("resourceClaims"),
    no("evictionResponders"),
];

const CONTAINER: &[Row] = &[
    yes("name", ""),
    yes("image", ""),
    yes("imagePullPolicy", ""),
    yes("command", "`$(VAR)` is expanded"),
    yes("args", "`$(VAR)` is expanded"),
    yes("workingDir", ""),
    items("env", ENV),
    items("envFrom", ENV_FROM),
    items("ports", PORT),
    fields("resources", RESOURCES),
    items("resizePolicy", RESIZE_POLICY),
    yes("restartPolicy", "overrules the Pod's; `Always` makes an init container a sidecar"),
    items("restartPolicyRules", RESTART_RULE),
    items("volumeMounts", VOLUME_MOUNT),
    no("volumeDevices"),
    fields("livenessProbe", PROBE),
    fields("readinessProbe", PROBE),
    fields("startupProbe", PROBE),
    fields(
        "lifecycle",
        &[fields("postStart", HOOK), fields("preStop", HOOK), yes("stopSignal", "needs `spec.os.name`")],
    ),
    yes("terminationMessagePath", ""),
    yes("terminationMessagePolicy", "`File`, `FallbackToLogsOnError`"),
    fields("securityContext", SECURITY_CONTEXT),
    yes("stdin", ""),
    yes("stdinOnce", ""),
    yes("tty", ""),
];

const EPHEMERAL_CONTAINER: &[Row] = &[
    yes("name", "added through the subresource `ephemeralcontainers`, never removed or changed"),
    yes("image", ""),
    yes("imagePullPolicy", ""),
    yes("command", "`$(VAR)` is expanded"),
    yes("args", "`$(VAR)` is expanded"),
    yes("workingDir", ""),
    items("env", ENV),
    items("envFrom", ENV_FROM),
    yes("targetContainerName", "sees the processes of that container"),
    items("volumeMounts", VOLUME_MOUNT),
    no("volumeDevices"),
    yes("terminationMessagePath", ""),
    yes("terminationMessagePolicy", "`File`, `FallbackToLogsOnError`"),
    fields("securityContext", SECURITY_CONTEXT),
    yes("stdin", ""),
    yes("stdinOnce", ""),
    yes("tty", ""),
    no_because("ports", NOT_EPHEMERAL),
    no_because("resources", NOT_EPHEMERAL),
    no_because("resizePolicy", NOT_EPHEMERAL),
    no_because("restartPolicy", NOT_EPHEMERAL),
    no_because("restartPolicyRules", NOT_EPHEMERAL),
    no_because("livenessProbe", NOT_EPHEMERAL),
    no_because("readinessProbe", NOT_EPHEMERAL),
    no_because("startupProbe", NOT_EPHEMERAL),
    no_because("lifecycle", NOT_EPHEMERAL),
];

const NOT_EPHEMERAL: &str = "Kubernetes has it for no ephemeral container";

const RESTART_RULE: &[Row] = &[
    yes("action", "`Restart`, or `RestartAllContainers` for the whole Pod, where it is"),
    fields("exitCodes", &[yes("operator", ""), yes("values", "")]),
];

const PROBE: &[Row] = &[
    fields("exec", COMMAND),
    fields("httpGet", HTTP_GET),
    fields("tcpSocket", TCP_SOCKET),
    fields("grpc", &[yes("port", ""), yes("service", ""), no("mode")]),
    yes("initialDelaySeconds", "from the start of the container"),
    yes("periodSeconds", ""),
    yes("timeoutSeconds", ""),
    yes("successThreshold", ""),
    yes("failureThreshold", ""),
    yes("terminationGracePeriodSeconds", "not for readiness"),
];

const HOOK: &[Row] = &[
    fields("exec", COMMAND),
    fields("httpGet", HTTP_GET),
    fields("sleep", &[yes("seconds", "")]),
    Row { field: "tcpSocket", support: Support::Fields(TCP_SOCKET), note: "fails when it is run, as in Kubernetes" },
];

const COMMAND: &[Row] = &[yes("command", "run as the container's user; its output is bounded")];

const HTTP_GET: &[Row] = &[
    yes("host", "asked from the machine, not from inside the Pod"),
    yes("port", "a number, or the name of a port of the same container"),
    yes("path", ""),
    yes("scheme", "`HTTPS` asks for no certificate"),
    items("httpHeaders", &[yes("name", ""), yes("value", "")]),
    no("protocol"),
];

const TCP_SOCKET: &[Row] =
    &[yes("host", "asked from the machine, not from inside the Pod"), yes("port", "a number or a name")];

const ENV: &[Row] =
    &[yes("name", ""), yes("value", "`$(VAR)` sees the variables before it"), fields("valueFrom", VALUE_FROM)];

const VALUE_FROM: &[Row] = &[
    fields("fieldRef", &[yes("apiVersion", ""), yes("fieldPath", "")]),
    fields(
        "resourceFieldRef",
        &[
            yes("containerName", ""),
            yes("resource", "CPU and memory; without a limit, what the node has"),
            yes("divisor", ""),
        ],
    ),
    fields("configMapKeyRef", KEY_REF),
    fields("secretKeyRef", KEY_REF),
    not_even_empty("fileKeyRef"),
];

const KEY_REF: &[Row] = &[yes("name", ""), yes("key", ""), yes("optional", "")];

const ENV_FROM: &[Row] = &[yes("prefix", ""), fields("configMapRef", OBJECT_REF), fields("secretRef", OBJECT_REF)];

const OBJECT_REF: &[Row] = &[yes("name", ""), yes("optional", "")];

const PORT: &[Row] = &[
    yes("name", ""),
    yes("containerPort", "names the port; each port of the Pod is reachable at its address"),
    yes("protocol", ""),
    unless(
        "hostPort",
        sctp,
        "TCP and UDP; led to the Pod from everywhere, the machine itself included; with `hostNetwork` the container's own",
    ),
    unless("hostIP", ipv6, "an IPv4 address of the machine"),
];

fn sctp(port: &Value, parent: &Value) -> Option<&'static str> {
    let is_sctp = parent.get("protocol").and_then(Value::as_str) == Some("SCTP") && port.as_i64() != Some(0);
    is_sctp.then_some("only TCP and UDP ports are published")
}

fn ipv6(address: &Value, _: &Value) -> Option<&'static str> {
    address.as_str().is_some_and(|address| address.contains(':')).then_some("Pods have IPv4 addresses only")
}

const RESOURCES: &[Row] = &[keys("requests", AMOUNTS), keys("limits", AMOUNTS), no("claims")];

const RESIZE_POLICY: &[Row] =
    &[yes("resourceName", "`cpu`, `memory`; changed through the subresource `resize`"), yes("restartPolicy", "")];

const POD_AMOUNTS: &[Row] = &[
    yes("cpu", "of all containers together; who has no limit of its own has the Pod's"),
    yes("memory", "of all containers together; who has no limit of its own has the Pod's"),
];

const AMOUNTS: &[Row] = &[
    yes("cpu", ""),
    yes("memory", ""),
    yes("ephemeral-storage", "measured every 10 s where there is a limit; a Pod over it is evicted"),
    yes("hugepages-*", "limits are requests; in the hugetlb controller, where the machine has it"),
    yes("*/*", "of a vendor: the Pod waits, `Pending`, until the node has it in `status.capacity`"),
];

const VOLUME_MOUNT: &[Row] = &[
    yes("name", ""),
    yes("mountPath", ""),
    yes("readOnly", ""),
    yes("mountPropagation", ""),
    yes("recursiveReadOnly", ""),
    yes("subPath", "a missing one becomes a directory; no symbolic link leads out of the volume"),
    yes("subPathExpr", "`$(VAR)` is expanded"),
    no("bindMountOptions"),
];

const SECURITY_CONTEXT: &[Row] = &[
    yes("runAsUser", ""),
    yes("runAsGroup", ""),
    yes("runAsNonRoot", ""),
    yes("privileged", ""),
    fields("capabilities", &[yes("add", ""), yes("drop", "")]),
    yes("allowPrivilegeEscalation", ""),
    yes("readOnlyRootFilesystem", ""),
    yes("procMount", "`Unmasked` needs `hostUsers: false`, as in Kubernetes"),
    fields("seccompProfile", SECCOMP),
    fields("appArmorProfile", APPARMOR),
    fields("seLinuxOptions", SELINUX),
    no("windowsOptions"),
];

const POD_SECURITY_CONTEXT: &[Row] = &[
    yes("runAsUser", ""),
    yes("runAsGroup", ""),
    yes("runAsNonRoot", ""),
    yes("supplementalGroups", ""),
    yes("supplementalGroupsPolicy", "`Merge`, `Strict`"),
    yes(
        "fsGroup",
        "for `emptyDir`, the files of API objects and `local` volumes, as in Kubernetes; never for `hostPath`",
    ),
    yes("fsGroupChangePolicy", "for `local` volumes; others are new with their Pod"),
    items(
        "sysctls",
        &[yes("name", "safe ones; others where `serve --allowed-unsafe-sysctls` names them"), yes("value", "")],
    ),
    fields("seccompProfile", SECCOMP),
    fields("appArmorProfile", APPARMOR),
    fields("seLinuxOptions", SELINUX),
    no("seLinuxChangePolicy"),
    no("windowsOptions"),
];

const SELINUX: &[Row] = &[
    yes("level", "labels mean nothing on a machine without SELinux, as in Kubernetes; with it the Pod is not started"),
    yes("role", ""),
    yes("type", ""),
    yes("user", ""),
];

const APPARMOR: &[Row] = &[
    yes(
        "type",
        "absent: as `RuntimeDefault` where the machine has AppArmor; asked for where it has none: the Pod fails, as in Kubernetes",
    ),
    yes("localhostProfile", "loaded by whoever runs the machine; the container waits until it is"),
];

const SECCOMP: &[Row] = &[
    yes("type", "`Unconfined` also where the field is absent"),
    yes("localhostProfile", "a file below `DATA_DIR/seccomp`, as the OCI specification or Docker writes it"),
];

const HOST_ALIAS: &[Row] = &[yes("ip", ""), yes("hostnames", "")];

const DNS_CONFIG: &[Row] =
    &[yes("nameservers", ""), yes("searches", ""), items("options", &[yes("name", ""), yes("value", "")])];

const TOLERATION: &[Row] = &[
    yes("key", ""),
    yes("operator", ""),
    yes("value", ""),
    yes("effect", ""),
    yes("tolerationSeconds", "accepted; a taint that comes later does not drive out a Pod that runs"),
];

const AFFINITY: &[Row] = &[
    fields("nodeAffinity", NODE_AFFINITY),
    fields("podAffinity", POD_AFFINITY),
    fields("podAntiAffinity", POD_AFFINITY),
];

const NODE_AFFINITY: &[Row] = &[
    fields("requiredDuringSchedulingIgnoredDuringExecution", &[items("nodeSelectorTerms", NODE_TERM)]),
    items(
        "preferredDuringSchedulingIgnoredDuringExecution",
        &[yes("weight", "changes nothing with one node"), fields("preference", NODE_TERM)],
    ),
];

const NODE_TERM: &[Row] = &[items("matchExpressions", REQUIREMENT), items("matchFields", REQUIREMENT)];

const REQUIREMENT: &[Row] = &[yes("key", ""), yes("operator", ""), yes("values", "")];

const POD_AFFINITY: &[Row] = &[
    no("requiredDuringSchedulingIgnoredDuringExecution"),
    items(
        "preferredDuringSchedulingIgnoredDuringExecution",
        &[yes("weight", "changes nothing with one node"), fields("podAffinityTerm", POD_TERM)],
    ),
];

const POD_TERM: &[Row] = &[
    fields("labelSelector", LABEL_SELECTOR),
    yes("matchLabelKeys", ""),
    yes("mismatchLabelKeys", ""),
    fields("namespaceSelector", LABEL_SELECTOR),
    yes("namespaces", ""),
    yes("topologyKey", ""),
];

const LABEL_SELECTOR: &[Row] = &[yes("matchLabels", ""), items("matchExpressions", REQUIREMENT)];

const SPREAD: &[Row] = &[
    yes("maxSkew", "one node is one domain of each topology: nothing is ever spread unevenly over it"),
    yes("topologyKey", "with `DoNotSchedule` the node must have this label"),
    yes("whenUnsatisfiable", ""),
    fields("labelSelector", LABEL_SELECTOR),
    yes("matchLabelKeys", ""),
    no("minDomains"),
    yes("nodeAffinityPolicy", ""),
    yes("nodeTaintsPolicy", ""),
];

const VOLUME: &[Row] = &[
    yes("name", ""),
    fields("emptyDir", EMPTY_DIR),
    fields("hostPath", &[yes("path", ""), yes("type", "all types")]),
    fields("configMap", CONFIG_MAP),
    fields("secret", SECRET),
    fields("downwardAPI", DOWNWARD_API),
    fields("projected", PROJECTED),
    fields("image", &[yes("reference", "layers merged, read-only, without devices"), yes("pullPolicy", "")]),
    fields(
        "persistentVolumeClaim",
        &[yes("claimName", "the Pod waits until the claim has a volume"), yes("readOnly", "")],
    ),
    not_even_empty("ephemeral"),
    not_even_empty("csi"),
    not_even_empty("nfs"),
    not_even_empty("iscsi"),
    not_even_empty("fc"),
    not_even_empty("awsElasticBlockStore"),
    not_even_empty("azureDisk"),
    not_even_empty("azureFile"),
    not_even_empty("cephfs"),
    not_even_empty("cinder"),
    not_even_empty("flexVolume"),
    not_even_empty("flocker"),
    not_even_empty("gcePersistentDisk"),
    not_even_empty("gitRepo"),
    not_even_empty("glusterfs"),
    not_even_empty("photonPersistentDisk"),
    not_even_empty("portworxVolume"),
    not_even_empty("quobyte"),
    not_even_empty("rbd"),
    not_even_empty("scaleIO"),
    not_even_empty("storageos"),
    not_even_empty("vsphereVolume"),
];

const EMPTY_DIR: &[Row] = &[
    unless(
        "medium",
        |medium, _| {
            let known = |medium: &str| ["", "Memory"].contains(&medium) || crate::huge_pages::is_medium(medium);
            (!medium.as_str().is_some_and(known)).then_some("only `Memory`, `HugePages` and `HugePages-<size>`")
        },
        "`Memory`, `HugePages`, `HugePages-<size>`, or empty: a directory of the node",
    ),
    yes(
        "sizeLimit",
        "on disk it is measured every 10 s, and a Pod over it is evicted; memory and huge pages never grow beyond it",
    ),
    no("mode"),
];

const CONFIG_MAP: &[Row] =
    &[yes("name", ""), items("items", FILE), yes("defaultMode", ""), no("defaultUser"), yes("optional", "")];

const SECRET: &[Row] =
    &[yes("secretName", ""), items("items", FILE), yes("defaultMode", ""), no("defaultUser"), yes("optional", "")];

const DOWNWARD_API: &[Row] = &[items("items", POD_FILE), yes("defaultMode", ""), no("defaultUser")];

const POD_FILE: &[Row] = &[
    yes("path", ""),
    fields("fieldRef", &[yes("apiVersion", ""), yes("fieldPath", "follows changes of labels and annotations")]),
    fields("resourceFieldRef", &[yes("containerName", ""), yes("resource", "CPU and memory"), yes("divisor", "")]),
    yes("mode", ""),
    no("user"),
];

const PROJECTED: &[Row] = &[items("sources", PROJECTION), yes("defaultMode", ""), no("defaultUser")];

const PROJECTION: &[Row] = &[
    fields("configMap", OBJECT_FILES),
    fields("secret", OBJECT_FILES),
    fields("downwardAPI", &[items("items", POD_FILE)]),
    fields(
        "serviceAccountToken",
        &[
            yes("audience", ""),
            yes("expirationSeconds", "the file is renewed when four fifths of it are over, and once a day"),
            yes("path", ""),
            no("user"),
        ],
    ),
    not_even_empty("clusterTrustBundle"),
    not_even_empty("podCertificate"),
];

const OBJECT_FILES: &[Row] = &[yes("name", ""), items("items", FILE), yes("optional", "")];

const FILE: &[Row] = &[yes("key", ""), yes("path", ""), yes("mode", ""), no("user")];
