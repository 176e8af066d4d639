//! What a list asks for.

use std::collections::HashMap;

use crate::proto::{ContainerFilter, ContainerStatsFilter, PodSandboxFilter, PodSandboxStatsFilter};

/// A thing that may be listed.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// Its own identifier.
    pub id: &'a str,
    /// Its sandbox'.
    pub sandbox: &'a str,
    /// Its state, by the number of the protocol.
    pub state: i32,
    /// Its labels.
    pub labels: &'a HashMap<String, String>,
}

/// Everything that is not empty must fit. An identifier may be the beginning of one.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    id: String,
    sandbox: String,
    state: Option<i32>,
    labels: HashMap<String, String>,
}

impl Filter {
    /// Whether it is asked for.
    pub fn takes(&self, listed: Listed<'_>) -> bool {
        listed.id.starts_with(&self.id)
            && listed.sandbox.starts_with(&self.sandbox)
            && self.state.is_none_or(|state| state == listed.state)
            && self.labels.iter().all(|(key, value)| listed.labels.get(key) == Some(value))
    }
}

impl From<Option<ContainerFilter>> for Filter {
    fn from(filter: Option<ContainerFilter>) -> Self {
        let ContainerFilter { id, state, pod_sandbox_id, label_selector } = filter.unwrap_or_default();
        Self { id, sandbox: pod_sandbox_id, state: state.map(|state| state.state), labels: label_selector }
    }
}

impl From<Option<ContainerStatsFilter>> for Filter {
    fn from(filter: Option<ContainerStatsFilter>) -> Self {
        let ContainerStatsFilter { id, pod_sandbox_id, label_selector } = filter.unwrap_or_default();
        Self { id, sandbox: pod_sandbox_id, state: None, labels: label_selector }
    }
}

impl From<Option<PodSandboxFilter>> for Filter {
    fn from(filter: Option<PodSandboxFilter>) -> Self {
        let PodSandboxFilter { id, state, label_selector } = filter.unwrap_or_default();
        Self { id, state: state.map(|state| state.state), labels: label_selector, ..Self::default() }
    }
}

impl From<Option<PodSandboxStatsFilter>> for Filter {
    fn from(filter: Option<PodSandboxStatsFilter>) -> Self {
        let PodSandboxStatsFilter { id, label_selector } = filter.unwrap_or_default();
        Self { id, labels: label_selector, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{ContainerState, ContainerStateValue};

    #[test]
    fn all_that_is_asked_must_fit() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let labels = HashMap::from([pair("app", "web"), pair("tier", "front")]);
        let listed = Listed { id: "abcdef", sandbox: "s1", state: 1, labels: &labels };
        let base = ContainerFilter::default;
        let state = |state: ContainerState| Some(ContainerStateValue { state: state as i32 });
        for (filter, want) in [
            (base(), true),
            (ContainerFilter { id: "abc".into(), ..base() }, true),
            (ContainerFilter { id: "bcd".into(), ..base() }, false),
            (ContainerFilter { pod_sandbox_id: "s2".into(), ..base() }, false),
            (ContainerFilter { state: state(ContainerState::ContainerRunning), ..base() }, true),
            (ContainerFilter { state: state(ContainerState::ContainerCreated), ..base() }, false),
            (ContainerFilter { label_selector: [pair("app", "web")].into(), ..base() }, true),
            (ContainerFilter { label_selector: [pair("app", "db")].into(), ..base() }, false),
        ] {
            assert_eq!(Filter::from(Some(filter.clone())).takes(listed), want, "{filter:?}");
        }
        assert!(Filter::from(None::<PodSandboxFilter>).takes(listed));
    }
}
