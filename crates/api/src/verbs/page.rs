//! Where a list begins: at the newest state, at one of the past, or where the page before ended.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use spec::validation::FieldReason;

use crate::context::Call;
use crate::http::status::ApiError;
use crate::verbs::list::wanted_revision;

/// Which state of the collection is listed (kubernetes.io, "Resource versions": the table of `get` and `list`).
#[derive(Debug, PartialEq, Eq)]
pub enum Start {
    /// As it is now.
    Newest,
    /// As it is now, which must not be before this revision.
    NotOlderThan(u64),
    /// As it was at this revision.
    At(u64),
    /// The next page.
    Continue(Continue),
}

/// What a continue token says; clients must not look inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continue {
    /// The revision of the first page; `None` after that one was lost.
    #[serde(rename = "rv", skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Namespace of the last object of the page before; empty for none.
    #[serde(rename = "ns")]
    pub pod_namespace: String,
    /// Its name.
    #[serde(rename = "n")]
    pub name: String,
}

impl Start {
    /// Reads `continue`, `resourceVersion` and `resourceVersionMatch`.
    pub fn parse(call: &Call, limited: bool) -> Result<Self, ApiError> {
        let matching = call.query.get("resourceVersionMatch");
        let forbidden =
            |why: &str| Err(ApiError::invalid_option("resourceVersionMatch", FieldReason::Forbidden, None, why));
        if call.query.get("sendInitialEvents").is_some() {
            let why = "sendInitialEvents is forbidden for list";
            return Err(ApiError::invalid_option("sendInitialEvents", FieldReason::Forbidden, None, why));
        }
        if let Some(token) = call.query.get("continue") {
            if matching.is_some() {
                return forbidden("resourceVersionMatch is forbidden for continue");
            }
            if wanted_revision(call)?.is_some() {
                return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
            }
            return Continue::decode(token).map(Self::Continue);
        }
        let wanted = wanted_revision(call)?;
        match (matching, wanted) {
            (Some("Exact" | "NotOlderThan"), None) if call.query.get("resourceVersion").is_none() => {
                forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")
            }
            (Some("Exact"), None) => forbidden(r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#),
            (Some("Exact"), Some(revision)) => Ok(Self::At(revision)),
            // Without a match, pages of an older state are exact; that is how it was before there was a match.
            (None, Some(revision)) if limited => Ok(Self::At(revision)),
            (None | Some("NotOlderThan"), Some(revision)) => Ok(Self::NotOlderThan(revision)),
            (None | Some("NotOlderThan"), None) => Ok(Self::Newest),
            (Some(other), _) => {
                let supported = r#"supported values: "Exact", "NotOlderThan""#;
                let reason = FieldReason::NotSupported;
                Err(ApiError::invalid_option("resourceVersionMatch", reason, Some(other), supported))
            }
        }
    }

    /// The object that the page before ended with.
    pub fn after(&self) -> Option<(Option<&str>, &str)> {
        match self {
            Self::Newest | Self::NotOlderThan(_) | Self::At(_) => None,
            Self::Continue(Continue { pod_namespace, name, .. }) => {
                Some(((!pod_namespace.is_empty()).then_some(pod_namespace.as_str()), name))
            }
        }
    }
}

impl Continue {
    /// As clients send it back.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(crate::render::encode(self))
    }

    /// The same place in the newest state.
    pub fn inconsistent(&self) -> Self {
        Self { revision: None, ..self.clone() }
    }

    fn decode(token: &str) -> Result<Self, ApiError> {
        let decoded = URL_SAFE_NO_PAD.decode(token.trim_end_matches('='));
        let token = decoded.ok().and_then(|json| serde_json::from_slice(&json).ok());
        token.ok_or_else(|| {
            ApiError::bad_request("continue key is not valid: it is none that this server has given out")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_way() {
        let token = Continue { revision: Some(7), pod_namespace: "a".to_owned(), name: "b".to_owned() };
        assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        assert_eq!(Continue::decode(&token.inconsistent().encode()).unwrap().revision, None);
        for bad in ["", "x", "e30", "!!"] {
            assert!(Continue::decode(bad).is_err(), "{bad}");
        }
    }
}
