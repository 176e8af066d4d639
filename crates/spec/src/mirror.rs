//! Static Pods: those that the node reads from files, and the objects that mirror them in the API.
//!
//! Kubernetes marks them by annotations. The object is there to be looked at: whoever deletes it gets it back, under a new
//! `metadata.uid`, and the Pod has not noticed, since it goes by the hash of its manifest.

use serde_json::Value;

/// Where the Pod comes from: `file`.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// Hash of manifest and node: the Pod's own UID.
pub const HASH: &str = "kubernetes.io/config.hash";
/// The same, on the object in the API.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// When the file was first seen as it is.
pub const SEEN: &str = "kubernetes.io/config.seen";

/// The hash of the Pod that this object mirrors, if it does.
pub fn hash(object: &Value) -> Option<&str> {
    // `/` is written `~1` in a pointer (RFC 6901).
    object.pointer("/metadata/annotations/kubernetes.io~1config.mirror")?.as_str().filter(|hash| !hash.is_empty())
}

/// The UID that the Pod of this object goes by on its node.
pub fn pod_uid(object: &Value) -> Option<&str> {
    hash(object).or_else(|| object.pointer("/metadata/uid")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mirror_goes_by_its_hash() {
        let pod = json!({"metadata": {"uid": "u"}});
        assert_eq!((hash(&pod), pod_uid(&pod)), (None, Some("u")));
        let mirror = json!({"metadata": {"uid": "u", "annotations": {MIRROR: "h"}}});
        assert_eq!((hash(&mirror), pod_uid(&mirror)), (Some("h"), Some("h")));
    }
}
