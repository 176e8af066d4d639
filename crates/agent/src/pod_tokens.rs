//! The tokens in the volumes of one Pod: issued when they are first wanted, and again before they end.

use std::collections::BTreeSet;
use std::time::Duration;

use spec::k8s_openapi::api::core::v1::{PodSpec, ServiceAccountTokenProjection};
use spec::ordered::set_of;
use spec::{PodRef, PodUid, Timestamp};
use store::{ObjectKey, Store};

use crate::clock::{BootTime, Now, wall_between};
use crate::desired::DesiredPod;
use crate::tokens::{Named, ServiceAccountTokens, TokenRequest};
use spec::ids::random_uuid;

/// Resource name of ServiceAccounts in the store.
pub const SERVICE_ACCOUNTS: &str = "serviceaccounts";

/// No token is older than a day (kubelet, `maxTTL`).
const OLDEST: i64 = 24 * 3600;
/// Up to so many seconds earlier, so that not all Pods ask at once (kubelet, `maxJitter`).
const JITTER: i64 = 10;
/// A token that could not be renewed is tried again after so many seconds.
const RETRY: i64 = 60;
/// The wall clock may be set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// How long a token is good where the Pod does not say.
const DEFAULT_SECONDS: i64 = 3600;

/// What one Pod has been given.
#[derive(Debug, Default)]
pub(crate) struct PodTokens {
    /// Nearly always one: a map would have room for eleven.
    issued: Vec<(Use, Result<Issued, String>)>,
}

/// Who is to have tokens, and which.
#[derive(Debug)]
pub(crate) struct Bearer {
    pod: PodRef,
    uid: PodUid,
    account: String,
    wanted: BTreeSet<Use>,
}

/// What a token is for; sources that want the same share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    audience: Option<String>,
    seconds: i64,
}

#[derive(Clone)]
struct Issued {
    account: Named,
    token: Box<str>,
    until: Timestamp,
    renew_at: Timestamp,
}

// It opens doors.
impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("until", &self.until).field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

impl Use {
    fn of(source: &ServiceAccountTokenProjection) -> Self {
        let audience = source.audience.clone().filter(|audience| !audience.is_empty());
        Self { audience, seconds: source.expiration_seconds.unwrap_or(DEFAULT_SECONDS) }
    }
}

/// The tokens that volumes of the Pod hold.
pub(crate) fn projections(spec: &PodSpec) -> impl Iterator<Item = &ServiceAccountTokenProjection> {
    let projected = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
    let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|source| source.service_account_token.as_ref())
}

/// The account of the Pod.
pub(crate) fn account_of(spec: &PodSpec) -> &str {
    spec.service_account_name.as_deref().unwrap_or_default()
}

impl Bearer {
    /// A Pod with this UID.
    pub(crate) fn new(pod: PodRef, uid: PodUid, spec: &PodSpec) -> Self {
        Self { pod, uid, account: account_of(spec).to_owned(), wanted: set_of(projections(spec).map(Use::of)) }
    }

    fn of(desired: &DesiredPod) -> Self {
        Self::new(desired.pod.clone(), desired.uid.clone(), &desired.spec)
    }
}

impl PodTokens {
    /// Issues what is missing, is for an account that was made anew, or gets old.
    pub(crate) fn refresh(
        &mut self,
        desired: &DesiredPod,
        signer: &ServiceAccountTokens,
        store: &Store,
        now: Timestamp,
    ) {
        self.refresh_for(&Bearer::of(desired), signer, store, now);
    }

    /// The first tokens of a Pod.
    pub(crate) fn issue(bearer: &Bearer, signer: &ServiceAccountTokens, store: &Store, now: Timestamp) -> Self {
        let mut tokens = Self::default();
        tokens.refresh_for(bearer, signer, store, now);
        tokens
    }

    fn refresh_for(&mut self, bearer: &Bearer, signer: &ServiceAccountTokens, store: &Store, now: Timestamp) {
        self.issued.retain(|(used, _)| bearer.wanted.contains(used));
        if bearer.wanted.is_empty() {
            return;
        }
        let account = account(bearer, store);
        for used in &bearer.wanted {
            let place = self.issued.iter().position(|(other, _)| other == used);
            let old = place.and_then(|place| self.issued.get(place)?.1.as_ref().ok());
            let good = |old: &Issued| account.as_ref().is_ok_and(|named| *named == old.account) && now < old.renew_at;
            if old.is_some_and(good) {
                continue;
            }
            let fresh = account.clone().and_then(|account| issue(bearer, used, account, signer, now));
            let fresh = match (fresh, old) {
                // As long as the old one is good, nobody need know.
                (Err(error), Some(old)) if now < old.until => {
                    tracing::warn!(error, "cannot renew a token");
                    let renew_at = now.checked_add(Duration::from_secs(RETRY.unsigned_abs())).unwrap_or(old.until);
                    Ok(Issued { renew_at, ..old.clone() })
                }
                (fresh, _) => fresh,
            };
            if let Some(issued) = place.and_then(|place| self.issued.get_mut(place)) {
                issued.1 = fresh;
            } else {
                self.issued.reserve_exact(1);
                self.issued.push((used.clone(), fresh));
            }
        }
    }

    /// Whether it has been given none.
    pub(crate) fn is_empty(&self) -> bool {
        self.issued.is_empty()
    }

    /// The token for a source.
    pub(crate) fn token(&self, source: &ServiceAccountTokenProjection) -> Result<String, String> {
        let used = Use::of(source);
        match self.issued.iter().find(|(other, _)| *other == used) {
            Some((_, Ok(issued))) => Ok(issued.token.to_string()),
            Some((_, Err(error))) => Err(format!("failed to fetch token: {error}")),
            None => Err("failed to fetch token: it was not asked for".to_owned()),
        }
    }

    /// When to look again. Tokens go by the wall clock, which may be set.
    pub(crate) fn renewal(&self, now: Now) -> Option<BootTime> {
        let next =
            self.issued.iter().filter_map(|(_, issued)| issued.as_ref().ok()).map(|issued| issued.renew_at).min()?;
        let left = wall_between(now.wall, next);
        Some(now.boot.after(left.max(Duration::from_secs(1)).min(LONGEST_WAIT)))
    }
}

fn account(bearer: &Bearer, store: &Store) -> Result<Named, String> {
    let name = bearer.account.as_str();
    let found = store.get(&ObjectKey::namespaced(SERVICE_ACCOUNTS, bearer.pod.pod_namespace.as_str(), name));
    let uid = found.and_then(|account| Some(account.value.pointer("/metadata/uid")?.as_str()?.to_owned()));
    let uid = uid.ok_or_else(|| format!("serviceaccounts {name:?} not found"))?;
    Ok(Named { name: name.to_owned(), uid })
}

fn issue(
    bearer: &Bearer,
    used: &Use,
    account: Named,
    signer: &ServiceAccountTokens,
    now: Timestamp,
) -> Result<Issued, String> {
    let request = TokenRequest {
        pod_namespace: bearer.pod.pod_namespace.clone(),
        account: account.clone(),
        pod: Some(Named { name: bearer.pod.name.clone(), uid: bearer.uid.to_string() }),
        secret: None,
        audiences: used.audience.iter().cloned().collect(),
        seconds: used.seconds,
    };
    let id = random_uuid();
    let jitter = i64::from(id.as_bytes().first().copied().unwrap_or_default()) % JITTER;
    let (token, until) = signer.issue(&request, id, now).ok_or("the kernel gives no random numbers")?;
    let after = (used.seconds - used.seconds / 5).min(OLDEST).saturating_sub(jitter);
    let renew_at = Timestamp::from_second(now.as_second().saturating_add(after)).unwrap_or(until);
    Ok(Issued { account, token: token.into(), until, renew_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestNode, desired_pod, pod};
    use serde_json::{Value, json};

    fn with_tokens(sources: &Value) -> DesiredPod {
        let sources: Vec<Value> =
            sources.as_array().unwrap().iter().map(|s| json!({"serviceAccountToken": s})).collect();
        desired_pod(&pod(&json!({
            "containers": [{"name": "app", "image": "app:1"}],
            "volumes": [{"name": "t", "projected": {"sources": sources}}],
        })))
    }

    #[tokio::test]
    async fn a_token_is_renewed_before_it_ends_and_for_a_new_account() {
        let node = TestNode::start().await;
        let account = |uid: &str| json!({"metadata": {"name": "default", "namespace": "default", "uid": uid}});
        let signer = node.agent().tokens();
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |seconds: i64| Timestamp::from_second(start.as_second() + seconds).unwrap();
        let desired = with_tokens(&json!([
            {"path": "a", "expirationSeconds": 1000}, {"path": "b", "audience": "vault", "expirationSeconds": 1_000_000},
        ]));
        let [api, vault] = projections(&desired.spec).collect::<Vec<_>>()[..] else { unreachable!() };
        let mut tokens = PodTokens::default();
        tokens.refresh(&desired, signer, &node.store, at(0));
        let missing = "failed to fetch token: serviceaccounts \"default\" not found";
        assert_eq!(tokens.token(api).unwrap_err(), missing);

        node.put(SERVICE_ACCOUNTS, account("u1")).await;
        tokens.refresh(&desired, signer, &node.store, at(0));
        let (first, for_vault) = (tokens.token(api).unwrap(), tokens.token(vault).unwrap());
        assert_ne!(first, for_vault);
        tokens.refresh(&desired, signer, &node.store, at(789));
        assert_eq!(tokens.token(api).unwrap(), first);
        tokens.refresh(&desired, signer, &node.store, at(801));
        assert_ne!(tokens.token(api).unwrap(), first, "four fifths of its time are over");
        assert_eq!(tokens.token(vault).unwrap(), for_vault);
        tokens.refresh(&desired, signer, &node.store, at(OLDEST));
        assert_ne!(tokens.token(vault).unwrap(), for_vault, "a day is over");

        let before = tokens.token(api).unwrap();
        node.put(SERVICE_ACCOUNTS, account("u2")).await;
        tokens.refresh(&desired, signer, &node.store, at(OLDEST + 1));
        assert_ne!(tokens.token(api).unwrap(), before, "the old one is dead with its account");
    }

    #[tokio::test]
    async fn without_its_account_the_pod_keeps_a_token_until_that_ends() {
        let node = TestNode::start().await;
        let account = json!({"metadata": {"name": "default", "namespace": "default", "uid": "u1"}});
        node.put(SERVICE_ACCOUNTS, account).await;
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |seconds: i64| Timestamp::from_second(start.as_second() + seconds).unwrap();
        let desired = with_tokens(&json!([{"path": "a", "expirationSeconds": 1000}]));
        let source = projections(&desired.spec).next().unwrap();
        let mut tokens = PodTokens::default();
        tokens.refresh(&desired, node.agent().tokens(), &node.store, at(0));
        let token = tokens.token(source).unwrap();
        let gone = desired_pod(&{
            let mut pod = serde_json::to_value(&desired.object).unwrap();
            pod["spec"]["serviceAccountName"] = "gone".into();
            pod
        });
        tokens.refresh(&gone, node.agent().tokens(), &node.store, at(900));
        assert_eq!(tokens.token(source).unwrap(), token);
        tokens.refresh(&gone, node.agent().tokens(), &node.store, at(1000));
        assert!(tokens.token(source).unwrap_err().contains("\"gone\" not found"));
    }
}
