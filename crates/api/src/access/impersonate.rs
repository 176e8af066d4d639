//! Acting as somebody else: `kubectl --as`. Who may do so is told by the verb `impersonate` on users, groups and
//! ServiceAccounts (kubernetes.io, "User impersonation").

use http::HeaderMap;
use store::Store;

use crate::access::Identity;
use crate::access::authenticate::unauthorized;
use crate::access::authorize::forbidden;
use crate::access::identity::AUTHENTICATED;
use crate::access::rbac::may;
use crate::access::rules::Action;
use crate::http::status::ApiError;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
const OF_AUTHENTICATION: &str = "authentication.k8s.io";

/// How the headers begin; none of them goes on to a server in a Pod.
pub const PREFIX: &str = "impersonate-";

/// Who the request is to be judged as: `identity`, or the one that it names and may be.
pub fn impersonate(store: &Store, identity: Identity, headers: &HeaderMap) -> Result<Identity, ApiError> {
    if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
        return Ok(identity);
    }
    if identity.is_anonymous() {
        return Err(unauthorized());
    }
    let name = all(headers, USER).next().filter(|name| !name.is_empty());
    let name =
        name.ok_or_else(|| ApiError::bad_request("requested groups, uid or extra without impersonating a user"))?;
    let account = name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
    let action = match account {
        Some((pod_namespace, account)) => action("", "serviceaccounts", account, pod_namespace),
        None => action("", "users", &name, ""),
    };
    check(store, &identity, &action)?;
    let mut groups: Vec<String> = all(headers, GROUP).collect();
    for group in &groups {
        check(store, &identity, &self::action("", "groups", group, ""))?;
    }
    let uid = all(headers, UID).next().unwrap_or_default();
    if !uid.is_empty() {
        check(store, &identity, &self::action(OF_AUTHENTICATION, "uids", &uid, ""))?;
    }
    let extra = extra_of(headers);
    for (key, values) in &extra {
        for value in values {
            let resource = format!("userextras/{key}");
            check(store, &identity, &self::action(OF_AUTHENTICATION, &resource, value, ""))?;
        }
    }
    // Who names no group is in those that the name itself implies.
    if let Some((pod_namespace, _)) = account.filter(|_| groups.is_empty()) {
        groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{pod_namespace}")];
    }
    let implied = if name == "system:anonymous" { "system:unauthenticated" } else { AUTHENTICATED };
    if !groups.iter().any(|group| group == implied) {
        groups.push(implied.to_owned());
    }
    Ok(Identity { name, uid, groups, extra })
}

fn check(store: &Store, identity: &Identity, action: &Action) -> Result<(), ApiError> {
    if may(store, identity, action) { Ok(()) } else { Err(forbidden(identity, action, "")) }
}

fn action(group: &str, resource: &str, name: &str, pod_namespace: &str) -> Action {
    Action::Resource {
        verb: "impersonate".to_owned(),
        group: group.to_owned(),
        resource: resource.to_owned(),
        name: name.to_owned(),
        pod_namespace: pod_namespace.to_owned(),
    }
}

fn all(headers: &HeaderMap, name: &str) -> impl Iterator<Item = String> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned)
}

/// Keys are written with percent signs where a header's name cannot hold them.
fn extra_of(headers: &HeaderMap) -> Vec<(String, Vec<String>)> {
    let names = headers.keys().filter_map(|name| Some((name.as_str(), name.as_str().strip_prefix(EXTRA)?)));
    let decoded = names.map(|(name, key)| {
        let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
        (key, all(headers, name).collect())
    });
    decoded.collect()
}
