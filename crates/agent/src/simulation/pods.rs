//! Pods at random: what they ask for, and what their programs do while nothing is wrong.

use std::time::Duration;

use serde_json::{Value, json};

use super::random::Random;
use crate::testing::named_pod;

/// What a container is, as far as order goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Init,
    Sidecar,
    App,
}

/// A Pod that the simulation knows all about, without asking the agent's code.
#[derive(Debug, Clone)]
pub struct Plan {
    pub policy: &'static str,
    pub grace: u64,
    pub deadline: Option<u64>,
    pub gated: bool,
    pub uses_config: bool,
    /// Init containers and sidecars in their order, then the app containers.
    pub containers: Vec<ContainerPlan>,
}

#[derive(Debug, Clone)]
pub struct ContainerPlan {
    pub name: String,
    pub kind: Kind,
    pub own_policy: Option<&'static str>,
    /// Exit codes after which it starts again whatever its policy says.
    pub rule: Option<Vec<i32>>,
    /// Whether it is one after which the whole Pod begins anew: [`RESTARTS_ALL`].
    pub restarts_all: bool,
    pub startup: Option<ProbePlan>,
    pub readiness: Option<ProbePlan>,
    pub liveness: Option<ProbePlan>,
    pub post_start: bool,
    pub pre_stop: bool,
    /// After how long its program ends by itself, well; servers do not.
    pub life: Option<Duration>,
    pub always_pull: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct ProbePlan {
    pub period: u64,
    pub failures: u32,
}

/// After which some programs take their whole Pod along into a restart in place.
pub const RESTARTS_ALL: i32 = 43;

/// What a command in a container is for.
pub const STARTUP: &str = "startup";
pub const READINESS: &str = "readiness";
pub const LIVENESS: &str = "liveness";
pub const POST_START: &str = "poststart";
pub const PRE_STOP: &str = "prestop";

impl Plan {
    pub fn random(random: &mut Random) -> Self {
        let policy = random.one_of(&["Always", "Always", "OnFailure", "Never"]);
        let mut containers = Vec::new();
        for number in 0..random.below(4) {
            let kind = random.one_of(&[Kind::Init, Kind::Sidecar]);
            containers.push(ContainerPlan::random(random, kind, number, policy));
        }
        for number in 0..=random.below(3) {
            containers.push(ContainerPlan::random(random, Kind::App, number, policy));
        }
        Self {
            policy,
            grace: random.one_of(&[0, 1, 5, 30, 30]),
            deadline: random.one_in(12).then(|| random.one_of(&[30, 300])),
            gated: random.one_in(15),
            uses_config: random.one_in(4),
            containers,
        }
    }

    pub fn container(&self, name: &str) -> Option<&ContainerPlan> {
        self.containers.iter().find(|container| container.name == name)
    }

    pub fn apps(&self) -> impl Iterator<Item = &ContainerPlan> {
        self.containers.iter().filter(|container| container.kind == Kind::App)
    }

    /// The object, as a client sends it and the API completes it.
    pub fn object(&self, uid: &str) -> Value {
        let list = |apps: bool| -> Vec<Value> {
            let wanted = self.containers.iter().filter(|container| (container.kind == Kind::App) == apps);
            wanted.map(|container| container.object(self.uses_config)).collect()
        };
        let mut spec = json!({
            "restartPolicy": self.policy,
            "terminationGracePeriodSeconds": self.grace,
            "volumes": [{ "name": "data", "emptyDir": {} }],
            "initContainers": list(false),
            "containers": list(true),
        });
        if let Some(deadline) = self.deadline {
            spec["activeDeadlineSeconds"] = deadline.into();
        }
        if self.gated {
            spec["schedulingGates"] = json!([{ "name": "example.org/wait" }]);
        }
        if self.uses_config {
            let volumes = spec["volumes"].as_array_mut().unwrap();
            volumes.push(json!({ "name": "config", "configMap": { "name": "settings", "optional": true } }));
        }
        named_pod("web", uid, &spec)
    }
}

impl ContainerPlan {
    fn random(random: &mut Random, kind: Kind, number: u64, policy: &str) -> Self {
        let has_probes = kind != Kind::Init;
        let mut probe = |one_in| {
            (has_probes && random.one_in(one_in))
                .then(|| ProbePlan { period: random.one_of(&[5, 10, 30]), failures: random.one_of(&[1, 3]) })
        };
        let (startup, readiness, liveness) = (probe(4), probe(4), probe(5));
        let own_policy = (kind != Kind::Sidecar && random.one_in(6)).then(|| {
            random.one_of(if kind == Kind::App { &["Always", "OnFailure", "Never"] } else { &["OnFailure", "Never"] })
        });
        let life = match kind {
            Kind::Init => Some(random.one_of(&[0, 0, 1, 4])),
            Kind::App if policy != "Always" && random.one_in(4) => Some(random.one_of(&[1, 20])),
            Kind::App | Kind::Sidecar => None,
        };
        let name = match kind {
            Kind::Init => format!("init{number}"),
            Kind::Sidecar => format!("side{number}"),
            Kind::App => format!("app{number}"),
        };
        Self {
            name,
            kind,
            own_policy,
            rule: (own_policy.is_some() && random.one_in(2)).then(|| vec![random.one_of(&[0, 1, 42])]),
            restarts_all: own_policy.is_some() && random.one_in(2),
            startup,
            readiness,
            liveness,
            post_start: has_probes && random.one_in(6),
            pre_stop: has_probes && random.one_in(5),
            life: life.map(Duration::from_secs),
            always_pull: random.one_in(5),
        }
    }

    fn object(&self, uses_config: bool) -> Value {
        let command = |what: &str| json!({ "exec": { "command": [format!("{what}-{}", self.name)] } });
        let probe = |what: &str, plan: &ProbePlan| {
            let mut probe = command(what);
            probe["periodSeconds"] = plan.period.into();
            probe["failureThreshold"] = plan.failures.into();
            probe
        };
        let mut container = json!({
            "name": self.name,
            "image": "app:1",
            "imagePullPolicy": if self.always_pull { "Always" } else { "IfNotPresent" },
            "resources": { "requests": { "cpu": "10m" } },
        });
        let mut mounts = vec![json!({ "name": "data", "mountPath": "/data" })];
        if uses_config {
            mounts.push(json!({ "name": "config", "mountPath": "/config" }));
        }
        container["volumeMounts"] = mounts.into();
        let policy = if self.kind == Kind::Sidecar { Some("Always") } else { self.own_policy };
        if let Some(policy) = policy {
            container["restartPolicy"] = policy.into();
        }
        let rule = |action: &str, values: &[i32]| json!({ "action": action, "exitCodes": { "operator": "In", "values": values } });
        let mut rules: Vec<_> = self.rule.iter().map(|values| rule("Restart", values)).collect();
        rules.extend(self.restarts_all.then(|| rule("RestartAllContainers", &[RESTARTS_ALL])));
        if !rules.is_empty() {
            container["restartPolicyRules"] = rules.into();
        }
        let probes = [(STARTUP, &self.startup), (READINESS, &self.readiness), (LIVENESS, &self.liveness)];
        for (what, plan) in probes {
            if let Some(plan) = plan {
                container[format!("{what}Probe")] = probe(what, plan);
            }
        }
        if self.post_start {
            container["lifecycle"]["postStart"] = command(POST_START);
        }
        if self.pre_stop {
            container["lifecycle"]["preStop"] = command(PRE_STOP);
        }
        container
    }

    /// Whether that end has the whole Pod begin anew.
    pub fn restarts_pod(&self, exit_code: i32) -> bool {
        self.restarts_all && exit_code == RESTARTS_ALL
    }

    /// Whether its place in a new sandbox is taken again whatever it came to in an old one: only what was to succeed once
    /// stays ended.
    pub fn runs_in_each_sandbox(&self, pod_policy: &str) -> bool {
        self.kind == Kind::App && self.own_policy.unwrap_or(pod_policy) != "OnFailure"
    }

    /// Whether it starts again after that end, by the words of the API.
    pub fn starts_again(&self, pod_policy: &str, exit_code: i32) -> bool {
        if self.rule.as_ref().is_some_and(|codes| codes.contains(&exit_code)) || self.restarts_pod(exit_code) {
            return true;
        }
        match (self.kind, self.own_policy.unwrap_or(pod_policy)) {
            (Kind::Sidecar, _) | (Kind::App, "Always") => true,
            (_, "Never") => false,
            (_, _) => exit_code != 0,
        }
    }
}
