//! Tokens of ServiceAccounts: signed with a key of this machine, bound to a Pod where they are for one, dead with it.
//!
//! They are JSON Web Tokens (RFC 7519) signed by ECDSA on P-256 (RFC 7518, ES256), with the claims that Kubernetes'
//! own have, so that libraries read them.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spec::Timestamp;
use store::{ObjectKey, Store};

/// Who issues the tokens, and whom they are for where nobody else is named.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// How long a token of a Pod that is about to go is good after the end of its grace period.
const AFTER_END: i64 = 60;

/// The `expirationSeconds` of the token that each Pod is given unasked; by this odd number it is known.
pub const AUTOMATIC_SECONDS: i64 = 3607;

/// How long such a token is really good: programs of before 2022 read the file once (KEP-1205, "safe rollout").
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// The key, and all that it signs.
#[derive(Debug)]
pub struct ServiceAccountTokens {
    key: EcdsaKeyPair,
    key_id: String,
    random: SystemRandom,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the key of ServiceAccounts {}: {why}", path.display())]
pub struct TokenKeyError {
    path: PathBuf,
    why: String,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    private: Private,
    nbf: i64,
    sub: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Private {
    namespace: String,
    serviceaccount: Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Named>,
    /// A token in use after this was not read again by its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warnafter: Option<i64>,
}

/// An object by name and uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// The namespace of account and Pod.
    pub pod_namespace: String,
    /// The account.
    pub account: Named,
    /// The Pod that it is bound to.
    pub pod: Option<Named>,
    /// The Secret that it is bound to.
    pub secret: Option<Named>,
    /// Whom it is for; the API server if empty.
    pub audiences: Vec<String>,
    /// How long it is good.
    pub seconds: i64,
}

/// Whom a good token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUser {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub name: String,
    /// Of the account.
    pub uid: String,
    /// The groups of all accounts, and of those of its namespace.
    pub groups: Vec<String>,
    /// The Pod that the token is bound to.
    pub pod: Option<Named>,
    /// Whom it is for.
    pub audiences: Vec<String>,
    /// Of the token.
    pub id: String,
}

/// Why a token is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token of this key.
    #[error("invalid bearer token")]
    Malformed,
    /// Its time has not come, or is over.
    #[error("service account token has expired")]
    Expired,
    /// It is for somebody else.
    #[error("token audiences {found:?} is invalid for the target audiences {wanted:?}")]
    Audience {
        /// Of the token.
        found: Vec<String>,
        /// Of the one who asks.
        wanted: Vec<String>,
    },
    /// What it is bound to is gone, or another one of that name.
    #[error("service account token has been invalidated")]
    Gone,
}

impl ServiceAccountTokens {
    /// Opens the key, or makes one.
    pub fn open(path: &Path) -> Result<Self, TokenKeyError> {
        let failed = |why: String| TokenKeyError { path: path.to_owned(), why };
        let random = SystemRandom::new();
        let document = match std::fs::read(path) {
            Ok(document) => document,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
                let made = made.map_err(|_unspecified| failed("there are no random numbers".to_owned()))?;
                write_private(path, made.as_ref()).map_err(|error| failed(error.to_string()))?;
                made.as_ref().to_vec()
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &document, &random)
            .map_err(|error| failed(error.to_string()))?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.public_key().as_ref()));
        Ok(Self { key, key_id, random })
    }

    /// Signs a token; `None` if the kernel gives no random numbers. Also says until when it is to be used.
    pub fn issue(&self, request: &TokenRequest, id: String, now: Timestamp) -> Option<(String, Timestamp)> {
        let until = Timestamp::from_second(now.as_second().saturating_add(request.seconds)).ok()?;
        let audiences = if request.audiences.is_empty() { vec![ISSUER.to_owned()] } else { request.audiences.clone() };
        let is_extended = request.pod.is_some() && request.seconds == AUTOMATIC_SECONDS && audiences == [ISSUER];
        let seconds = if is_extended { EXTENDED_SECONDS } else { request.seconds };
        let claims = Claims {
            aud: audiences,
            exp: now.as_second().saturating_add(seconds),
            iat: now.as_second(),
            iss: ISSUER.to_owned(),
            jti: id,
            private: Private {
                namespace: request.pod_namespace.clone(),
                serviceaccount: request.account.clone(),
                pod: request.pod.clone(),
                secret: request.secret.clone(),
                warnafter: is_extended.then(|| until.as_second()),
            },
            nbf: now.as_second(),
            sub: user_name(&request.pod_namespace, &request.account.name),
        };
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let signed =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(&serde_json::to_vec(&claims).ok()?));
        let signature = self.key.sign(&self.random, signed.as_bytes()).ok()?;
        Some((format!("{signed}.{}", encode(signature.as_ref())), until))
    }

    /// Checks a token, and that all that it is bound to is still there. An empty list of audiences means the API server.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        store: &Store,
        now: Timestamp,
    ) -> Result<TokenUser, TokenError> {
        let claims = self.claims(token).ok_or(TokenError::Malformed)?;
        if now.as_second() < claims.nbf || now.as_second() >= claims.exp {
            return Err(TokenError::Expired);
        }
        let wanted = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences.to_vec() };
        if !claims.aud.iter().any(|audience| wanted.contains(audience)) {
            return Err(TokenError::Audience { found: claims.aud, wanted });
        }
        let Private { namespace, serviceaccount, pod, secret, warnafter: _ } = claims.private;
        let bound = [("serviceaccounts", Some(&serviceaccount)), ("pods", pod.as_ref()), ("secrets", secret.as_ref())];
        for (resource, object) in bound {
            let Some(object) = object else { continue };
            let found = store.get(&ObjectKey::namespaced(resource, namespace.as_str(), object.name.as_str()));
            if !found.is_some_and(|found| is_alive(&found.value, &object.uid, now)) {
                return Err(TokenError::Gone);
            }
        }
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ];
        let name = user_name(&namespace, &serviceaccount.name);
        Ok(TokenUser {
            name,
            uid: serviceaccount.uid,
            groups: groups.into(),
            pod,
            audiences: claims.aud,
            id: claims.jti,
        })
    }

    fn claims(&self, token: &str) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.get("alg").and_then(Value::as_str) != Some("ES256") {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(signed.as_bytes(), &signature).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        Some(claims).filter(|claims| claims.iss == ISSUER)
    }
}

/// The user that a ServiceAccount is.
pub fn user_name(pod_namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{pod_namespace}:{account}")
}

/// The same object as when the token was issued, and not gone for longer than its grace period.
fn is_alive(object: &Value, uid: &str, now: Timestamp) -> bool {
    let text = |path| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let over = text("/metadata/deletionTimestamp").parse::<Timestamp>();
    let over = over.is_ok_and(|end| now.as_second() > end.as_second().saturating_add(AFTER_END));
    text("/metadata/uid") == uid && !over
}

/// Written whole under another name first: half a key would be worse than none.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    drop(std::fs::remove_file(&unfinished));
    let mut file = std::fs::OpenOptions::new();
    let mut file = {
        use std::os::unix::fs::OpenOptionsExt as _;
        file.write(true).create_new(true).mode(0o600).open(&unfinished)?
    };
    io::Write::write_all(&mut file, content)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Change;

    async fn put(store: &Store, resource: &str, name: &str, value: Value) {
        let decide = move |_: Option<&store::StoredObject>| Ok::<_, std::convert::Infallible>((Change::Put(value), ()));
        store.write(ObjectKey::namespaced(resource, "n", name), decide).await.unwrap();
    }

    fn named(name: &str, uid: &str) -> Named {
        Named { name: name.to_owned(), uid: uid.to_owned() }
    }

    #[tokio::test]
    async fn a_token_is_good_for_its_pod_audience_and_time() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        put(&store, "serviceaccounts", "a", json!({"metadata": {"name": "a", "uid": "ua"}})).await;
        put(&store, "pods", "p", json!({"metadata": {"name": "p", "uid": "up"}})).await;
        let tokens = ServiceAccountTokens::open(&home.path().join("key")).unwrap();
        let mode = std::fs::metadata(home.path().join("key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |seconds: i64| Timestamp::from_second(now.as_second() + seconds).unwrap();
        let request = TokenRequest {
            pod_namespace: "n".to_owned(),
            account: named("a", "ua"),
            pod: Some(named("p", "up")),
            secret: None,
            audiences: Vec::new(),
            seconds: 600,
        };
        let (token, until) = tokens.issue(&request, "id".to_owned(), now).unwrap();
        assert_eq!(until, at(600));
        let user = tokens.verify(&token, &[], &store, at(599)).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:n:a", "ua"));
        assert!(user.groups.contains(&"system:serviceaccounts:n".to_owned()));
        assert_eq!(tokens.verify(&token, &[], &store, at(600)), Err(TokenError::Expired));
        assert_eq!(tokens.verify(&token, &[], &store, at(-1)), Err(TokenError::Expired));
        let vault = ["vault".to_owned()];
        assert!(matches!(tokens.verify(&token, &vault, &store, now), Err(TokenError::Audience { .. })));

        // The key is the same after a restart, and another key's tokens are worth nothing.
        let again = ServiceAccountTokens::open(&home.path().join("key")).unwrap();
        assert!(again.verify(&token, &[], &store, now).is_ok());
        let other = ServiceAccountTokens::open(&home.path().join("other")).unwrap();
        assert_eq!(other.verify(&token, &[], &store, now), Err(TokenError::Malformed));
        let (head, rest) = token.split_once('.').unwrap();
        let none = URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
        for bad in ["", "a.b", "a.b.c", &format!("{none}.{rest}"), &format!("{head}.{head}.{head}")] {
            assert_eq!(tokens.verify(bad, &[], &store, now), Err(TokenError::Malformed), "{bad}");
        }

        let automatic = TokenRequest { seconds: AUTOMATIC_SECONDS, ..request };
        let (automatic, until) = tokens.issue(&automatic, "id".to_owned(), now).unwrap();
        assert_eq!(until, at(AUTOMATIC_SECONDS), "then it is to be read anew");
        assert!(tokens.verify(&automatic, &[], &store, at(EXTENDED_SECONDS - 1)).is_ok());
        assert_eq!(tokens.verify(&automatic, &[], &store, at(EXTENDED_SECONDS)), Err(TokenError::Expired));

        put(&store, "pods", "p", json!({"metadata": {"name": "p", "uid": "another"}})).await;
        assert_eq!(tokens.verify(&token, &[], &store, now), Err(TokenError::Gone));
        let ending = json!({"metadata": {"name": "p", "uid": "up", "deletionTimestamp": "2026-01-01T00:00:10Z"}});
        put(&store, "pods", "p", ending).await;
        assert!(tokens.verify(&token, &[], &store, at(70)).is_ok());
        assert_eq!(tokens.verify(&token, &[], &store, at(71)), Err(TokenError::Gone));
    }
}
