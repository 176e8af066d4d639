//! Who asks: a name and groups, as Kubernetes knows users.

/// The group whose members may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of all who said who they are.
pub const AUTHENTICATED: &str = "system:authenticated";

/// A user, as `authentication.k8s.io` describes one. Kubernetes keeps no object of users.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The name that bindings use.
    pub name: String,
    /// Tells users of the same name apart; empty but for ServiceAccounts.
    pub uid: String,
    /// Groups that bindings use.
    pub groups: Vec<String>,
    /// What else is known, such as the Pod of a token.
    pub extra: Vec<(String, Vec<String>)>,
}

impl Identity {
    /// A user who has said who they are.
    pub fn authenticated(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Root, or the daemon's own user, on the unix socket.
    pub fn owner() -> Self {
        Self::authenticated("system:admin", [MASTERS.to_owned()])
    }

    /// Somebody who has not said who they are.
    pub fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".to_owned()];
        Self { name: "system:anonymous".to_owned(), groups, ..Self::default() }
    }

    /// Whether this is somebody who has not said who they are.
    pub fn is_anonymous(&self) -> bool {
        !self.is_in(AUTHENTICATED)
    }

    /// Whether they are in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|name| name == group)
    }
}
