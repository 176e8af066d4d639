//! Reviews: objects that are asked, not kept. `kubectl auth can-i` and `whoami`.

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use spec::ordered::object_of;

use crate::access::rbac::{may, rules};
use crate::access::rules::Action;
use crate::access::{Identity, MASTERS, tokens};
use crate::context::Context;
use crate::fields::{items_at, text_at};
use crate::http::body;
use crate::http::reply::{Reply, whole};
use crate::http::status::ApiError;
use crate::render::encode;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Review {
    /// May I?
    SelfSubjectAccess,
    /// What may I?
    SelfSubjectRules,
    /// May they?
    SubjectAccess,
    /// Who am I?
    SelfSubject,
    /// Whose token is this?
    Token,
}

impl Review {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::SelfSubjectAccess, Self::SelfSubjectRules, Self::SubjectAccess, Self::SelfSubject, Self::Token];

    /// Its place in a path.
    pub fn find(group: &str, version: &str, resource: &str) -> Option<Self> {
        let named = |review: &Self| (review.group(), "v1", review.resource()) == (group, version, resource);
        Self::ALL.into_iter().find(named)
    }

    /// Its API group.
    pub fn group(self) -> &'static str {
        match self {
            Self::SelfSubjectAccess | Self::SelfSubjectRules | Self::SubjectAccess => "authorization.k8s.io",
            Self::SelfSubject | Self::Token => "authentication.k8s.io",
        }
    }

    /// Its plural name.
    pub fn resource(self) -> &'static str {
        match self {
            Self::SelfSubjectAccess => "selfsubjectaccessreviews",
            Self::SelfSubjectRules => "selfsubjectrulesreviews",
            Self::SubjectAccess => "subjectaccessreviews",
            Self::SelfSubject => "selfsubjectreviews",
            Self::Token => "tokenreviews",
        }
    }

    /// Its kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::SelfSubjectAccess => "SelfSubjectAccessReview",
            Self::SelfSubjectRules => "SelfSubjectRulesReview",
            Self::SubjectAccess => "SubjectAccessReview",
            Self::SelfSubject => "SelfSubjectReview",
            Self::Token => "TokenReview",
        }
    }

    /// Whether somebody asks about themselves.
    pub fn is_of_self(self) -> bool {
        matches!(self, Self::SelfSubjectAccess | Self::SelfSubjectRules | Self::SelfSubject)
    }
}

/// Answers a review: the object that was sent, with a status.
pub fn answer(
    context: &Context,
    identity: &Identity,
    review: Review,
    headers: &HeaderMap,
    bytes: &bytes::Bytes,
) -> Result<Reply, ApiError> {
    let mut object = body::decode(headers, bytes)?;
    let kind = text_at(&object, "/kind");
    if !kind.is_empty() && kind != review.kind() {
        return Err(ApiError::bad_request(format!("the body is a {kind}, not a {}", review.kind())));
    }
    let spec = object.get("spec").cloned().unwrap_or_else(|| json!({}));
    let status = match review {
        Review::SelfSubjectAccess => access(context, identity, &spec)?,
        Review::SubjectAccess => access(context, &subject(&spec)?, &spec)?,
        Review::SelfSubjectRules => rules_of(context, identity, text_at(&spec, "/namespace"))?,
        Review::SelfSubject => json!({"userInfo": user_info(identity)}),
        Review::Token => token(context, &spec),
    };
    let fields = object.as_object_mut().ok_or_else(|| ApiError::bad_request("the body is not an object"))?;
    fields.insert("kind".to_owned(), json!(review.kind()));
    fields.insert("apiVersion".to_owned(), json!(format!("{}/v1", review.group())));
    fields.entry("metadata").or_insert_with(|| json!({}));
    fields.insert("status".to_owned(), status);
    Ok(whole(StatusCode::CREATED, "application/json", encode(&object)))
}

fn token(context: &Context, spec: &Value) -> Value {
    let audiences: Vec<String> = items_at(spec, "/audiences").filter_map(Value::as_str).map(str::to_owned).collect();
    match tokens::review(context, text_at(spec, "/token"), &audiences) {
        Ok((bearer, audiences)) => {
            json!({"authenticated": true, "user": user_info(&bearer), "audiences": audiences})
        }
        Err(error) => json!({"authenticated": false, "user": {}, "error": error.to_string()}),
    }
}

fn access(context: &Context, identity: &Identity, spec: &Value) -> Result<Value, ApiError> {
    let text = |path: &str| text_at(spec, path).to_owned();
    let is_there = |path: &str| spec.pointer(path).is_some_and(|value| !value.is_null());
    let action = match (is_there("/resourceAttributes"), is_there("/nonResourceAttributes")) {
        (true, false) => {
            let (resource, part) = (text("/resourceAttributes/resource"), text("/resourceAttributes/subresource"));
            Action::Resource {
                verb: text("/resourceAttributes/verb"),
                group: text("/resourceAttributes/group"),
                resource: if part.is_empty() { resource } else { format!("{resource}/{part}") },
                name: text("/resourceAttributes/name"),
                pod_namespace: text("/resourceAttributes/namespace"),
            }
        }
        (false, true) => {
            Action::Path { verb: text("/nonResourceAttributes/verb"), path: text("/nonResourceAttributes/path") }
        }
        _ => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(ApiError::unprocessable(why));
        }
    };
    Ok(json!({"allowed": may(&context.store, identity, &action)}))
}

/// Whom a SubjectAccessReview asks about.
fn subject(spec: &Value) -> Result<Identity, ApiError> {
    let groups = spec.get("groups").and_then(Value::as_array).into_iter().flatten();
    let groups: Vec<String> = groups.filter_map(Value::as_str).map(str::to_owned).collect();
    let name = text_at(spec, "/user").to_owned();
    if name.is_empty() && groups.is_empty() {
        return Err(ApiError::unprocessable("at least one of user or group must be specified"));
    }
    Ok(Identity { name, groups, ..Identity::default() })
}

fn rules_of(context: &Context, identity: &Identity, pod_namespace: &str) -> Result<Value, ApiError> {
    if pod_namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    if identity.is_in(MASTERS) {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    for rule in rules(&context.store, identity, pod_namespace) {
        let list =
            if rule.resources.as_ref().is_some_and(|list| !list.is_empty()) { &mut resources } else { &mut paths };
        list.push(serde_json::to_value(rule).map_err(|error| ApiError::internal(&error))?);
    }
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}

fn user_info(identity: &Identity) -> Value {
    let mut info = json!({"username": identity.name, "groups": identity.groups});
    if let Some(info) = info.as_object_mut() {
        if !identity.uid.is_empty() {
            info.insert("uid".to_owned(), json!(identity.uid));
        }
        if !identity.extra.is_empty() {
            let extra = identity.extra.iter().map(|(name, values)| (name.clone(), json!(values)));
            info.insert("extra".to_owned(), object_of(extra).into());
        }
    }
    info
}
