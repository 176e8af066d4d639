//! New pods as they were admitted, from the API to their workers: what has been read and signed for them already.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spec::k8s_openapi::api::core::v1::{Pod, PodSpec};
use spec::{PodRef, PodUid};

use crate::pod_tokens::{Bearer, PodTokens};

/// Pods whose objects are on their way to the disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExpectedPods(Arc<Mutex<HashMap<PodUid, Expected>>>);

/// What a worker may take, each once.
#[derive(Debug)]
struct Expected {
    pod: Option<Box<Pod>>,
    tokens: Option<PodTokens>,
}

/// Held while a new Pod is being written; when it goes, nothing is kept that the Pod's worker has not taken.
#[derive(Debug)]
pub struct ExpectedPod {
    all: ExpectedPods,
    uid: PodUid,
    bearer: Bearer,
}

impl ExpectedPods {
    /// Keeps a pod for its worker, which need not read its object.
    pub(crate) fn expect(&self, uid: PodUid, pod: Box<Pod>) -> ExpectedPod {
        let (metadata, spec) = (&pod.metadata, pod.spec.as_ref());
        let named =
            PodRef::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        let bearer = Bearer::new(named, uid.clone(), spec.unwrap_or(&PodSpec::default()));
        self.lock().insert(uid.clone(), Expected { pod: Some(pod), tokens: None });
        ExpectedPod { all: self.clone(), uid, bearer }
    }

    /// The pod in its type, without UID, revision and owners.
    pub(crate) fn take_pod(&self, uid: &PodUid) -> Option<Box<Pod>> {
        self.lock().get_mut(uid)?.pod.take()
    }

    /// The tokens that were signed for it.
    pub(crate) fn take_tokens(&self, uid: &PodUid) -> Option<PodTokens> {
        self.lock().get_mut(uid)?.tokens.take()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodUid, Expected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ExpectedPod {
    /// Has tokens signed, for the pod's worker to find.
    pub(crate) fn sign(&self, sign: impl FnOnce(&Bearer) -> PodTokens) {
        let tokens = sign(&self.bearer);
        if let Some(expected) = self.all.lock().get_mut(&self.uid) {
            expected.tokens = Some(tokens);
        }
    }
}

impl Drop for ExpectedPod {
    fn drop(&mut self) {
        drop(self.all.lock().remove(&self.uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_handed_out_once_and_kept_no_longer_than_it_is_written() {
        let pods = ExpectedPods::default();
        let [one, two] = ["one", "two"].map(PodUid::new);
        let named = |name: &str| {
            let mut pod = Pod::default();
            pod.metadata.name = Some(name.to_owned());
            Box::new(pod)
        };
        let writing = [pods.expect(one.clone(), named("a")), pods.expect(two.clone(), named("b"))];
        assert_eq!(pods.take_pod(&one), Some(named("a")));
        assert_eq!(pods.take_pod(&one), None);
        assert!(pods.take_tokens(&one).is_none(), "nobody has signed any");
        writing[0].sign(|_| PodTokens::default());
        assert!(pods.take_tokens(&one).is_some() && pods.take_tokens(&one).is_none());
        writing[1].sign(|_| PodTokens::default());
        drop(writing);
        assert!(pods.take_pod(&two).is_none() && pods.take_tokens(&two).is_none());
        assert!(pods.lock().is_empty());
    }
}
