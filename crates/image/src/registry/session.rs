//! Requests to one repository of one server: proof of identity, retries, and what an answer's status means.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;

use super::challenge::{Challenge, challenge};
use super::config::RegistryConfig;
use super::connect::ConnectError;
use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::error::PullCause;
use super::http::{Answer, Call, Http, HttpError, set_range};

/// Error bodies and tokens.
const SMALL_ANSWER: u64 = 256 * 1024;
/// What is told of a registry's own words.
const DETAIL: usize = 300;

/// A repository on a server, and who one is there.
pub(super) struct Session {
    pub(super) http: Arc<Http>,
    config: Arc<RegistryConfig>,
    https: bool,
    pub(super) authority: String,
    repository: String,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<HeaderValue>>,
}

/// A request for something of the repository.
pub(super) struct Wanted<'a> {
    pub(super) method: Method,
    /// For messages: `manifest 1.2`.
    pub(super) what: &'a str,
    /// Below the repository: `manifests/1.2`.
    pub(super) path: &'a str,
    pub(super) accept: &'static str,
    /// The first byte, if not the very first.
    pub(super) offset: u64,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

#[derive(Deserialize)]
struct Complaints {
    #[serde(default)]
    errors: Vec<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Session {
    /// Finds out how the server is to be spoken to.
    pub(super) async fn open(
        http: Arc<Http>,
        config: Arc<RegistryConfig>,
        endpoint: &Endpoint,
        repository: &str,
        credentials: Option<Credentials>,
    ) -> Result<Self, PullCause> {
        let authority = endpoint.authority.clone();
        let https = match endpoint.https {
            Some(https) => https,
            None if config.may_be_plain(&authority) => speaks_tls(&http, &authority).await?,
            None => true,
        };
        let repository = endpoint.repository(repository);
        Ok(Self { http, config, https, authority, repository, credentials, authorization: Mutex::default() })
    }

    /// Asks for something; an answer is a good one.
    pub(super) async fn ask(&self, wanted: &Wanted<'_>) -> Result<Answer, PullCause> {
        let mut tries = 0;
        loop {
            let answered = self.ask_once(wanted).await;
            let is_transient = match &answered {
                Ok(answer) => is_transient(answer.response.status()),
                Err(PullCause::Http(HttpError::Broken { .. })) => true,
                Err(_) => false,
            };
            if !is_transient || tries >= self.config.patience.retries {
                return self.judge(wanted.what, answered?).await;
            }
            self.pause(tries).await;
            tries += 1;
        }
    }

    /// Waits before the next try, twice as long each time.
    pub(super) async fn pause(&self, tries: u32) {
        tokio::time::sleep(self.config.patience.back_off.saturating_mul(1 << tries.min(6))).await;
    }

    /// How often something is tried again.
    pub(super) fn retries(&self) -> u32 {
        self.config.patience.retries
    }

    async fn ask_once(&self, wanted: &Wanted<'_>) -> Result<Answer, PullCause> {
        let answer = self.http.send(self.call(wanted)).await?;
        // A server to which one was redirected has no claim to our credentials.
        if answer.response.status() != StatusCode::UNAUTHORIZED || answer.authority != self.authority {
            return Ok(answer);
        }
        match challenge(answer.response.headers()) {
            Some(asked) => {
                drop(answer);
                self.authorize(wanted.what, asked).await?;
                Ok(self.http.send(self.call(wanted)).await?)
            }
            None => Ok(answer),
        }
    }

    fn call(&self, wanted: &Wanted<'_>) -> Call {
        let path = format!("/v2/{}/{}", self.repository, wanted.path);
        let mut call = Call { method: wanted.method.clone(), ..Call::get(self.https, &self.authority, path) };
        call.headers.insert(ACCEPT, HeaderValue::from_static(wanted.accept));
        if wanted.offset > 0 {
            set_range(&mut call, wanted.offset);
        }
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(authorization) = authorization.as_ref() {
            call.headers.insert(AUTHORIZATION, authorization.clone());
        }
        call
    }

    async fn authorize(&self, what: &str, asked: Challenge) -> Result<(), PullCause> {
        let value = match (asked, &self.credentials) {
            (Challenge::Basic, Some(Credentials::Password { username, password })) => basic(username, password),
            (Challenge::Basic, _) => {
                let detail = "it wants user and password, and there are none for it".to_owned();
                return Err(PullCause::Denied { what: what.to_owned(), registry: self.authority.clone(), detail });
            }
            (Challenge::Bearer { realm, service }, _) => {
                format!("Bearer {}", self.token(what, &realm, service.as_deref()).await?)
            }
        };
        let mut value =
            HeaderValue::try_from(value).map_err(|_invalid| PullCause::NoToken { realm: self.authority.clone() })?;
        value.set_sensitive(true);
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    async fn token(&self, what: &str, realm: &str, service: Option<&str>) -> Result<String, PullCause> {
        let call = self.token_call(realm, service)?;
        let missing = || PullCause::NoToken { realm: realm.split('?').next().map(printable).unwrap_or_default() };
        let answer = self.http.send(call).await?;
        let mut answer = self.judge(what, answer).await?;
        let body = self.http.read(&mut answer, SMALL_ANSWER).await?;
        let token: Token = serde_json::from_slice(&body).map_err(|_secret| missing())?;
        [token.token, token.access_token].into_iter().find(|token| !token.is_empty()).ok_or_else(missing)
    }

    /// The request for a token (distribution-spec, "Token authentication"). The scope is ours: pulling from this repository,
    /// whatever the registry asks for.
    fn token_call(&self, realm: &str, service: Option<&str>) -> Result<Call, PullCause> {
        let (https, authority, path) = self.judge_realm(realm)?;
        let mut form = form_urlencoded::Serializer::new(String::new());
        if let Some(service) = service {
            form.append_pair("service", service);
        }
        form.append_pair("scope", &format!("repository:{}:pull", self.repository));
        if let Some(Credentials::IdentityToken(refresh)) = &self.credentials {
            form.append_pair("grant_type", "refresh_token").append_pair("client_id", "monopod");
            let body = Bytes::from(form.append_pair("refresh_token", refresh).finish());
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            return Ok(Call { method: Method::POST, headers, body, ..Call::get(https, &authority, path) });
        }
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut call = Call::get(https, &authority, format!("{path}{separator}{}", form.finish()));
        if let Some(Credentials::Password { username, password }) = &self.credentials
            && let Ok(mut value) = HeaderValue::try_from(basic(username, password))
        {
            value.set_sensitive(true);
            call.headers.insert(AUTHORIZATION, value);
        }
        Ok(call)
    }

    /// Whether we may show ourselves to the token server that a registry names.
    fn judge_realm(&self, realm: &str) -> Result<(bool, String, String), PullCause> {
        let refused = |why| {
            let realm = printable(realm.split('?').next().unwrap_or_default());
            PullCause::Realm { registry: self.authority.clone(), realm, why }
        };
        let uri: Uri = realm.parse().map_err(|_invalid| refused("that is no URL"))?;
        let authority = uri.authority().ok_or_else(|| refused("that names no host"))?.to_string();
        if authority.contains('@') {
            return Err(refused("it has a user in it"));
        }
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        match uri.scheme_str() {
            Some("https") => Ok((true, authority, path)),
            Some("http") if !self.https && self.config.may_be_plain(&authority) => Ok((false, authority, path)),
            Some("http") => Err(refused("that is not encrypted")),
            _ => Err(refused("it begins neither with https:// nor with http://")),
        }
    }

    /// Makes an error of an answer that is none.
    async fn judge(&self, what: &str, mut answer: Answer) -> Result<Answer, PullCause> {
        let status = answer.response.status();
        if status.is_success() {
            return Ok(answer);
        }
        let (what, registry) = (what.to_owned(), answer.authority.clone());
        // Nobody waits for the words of a server that does not find them.
        let body = self.http.read(&mut answer, SMALL_ANSWER).await.unwrap_or_default();
        let detail = detail(&body, status);
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let detail = match &self.credentials {
                    Some(Credentials::Password { username, .. }) => format!("{detail} (as user {username:?})"),
                    Some(Credentials::IdentityToken(_)) => detail,
                    None => format!("{detail} (without credentials)"),
                };
                PullCause::Denied { what, registry, detail }
            }
            StatusCode::NOT_FOUND => PullCause::NotFound { what, registry, detail },
            _ => PullCause::Status { what, registry, status, detail },
        })
    }
}

/// Plain HTTP is allowed there; TLS is spoken if the server can.
async fn speaks_tls(http: &Http, authority: &str) -> Result<bool, PullCause> {
    match http.connector().connect(true, authority).await {
        Ok(_) => Ok(true),
        Err(ConnectError::NotTls { .. } | ConnectError::NoCertificates) => Ok(false),
        // Its port for TLS is closed; the one for plain HTTP may be open.
        Err(ConnectError::Tcp { address, .. }) if address.port() == 443 => Ok(false),
        Err(error) => Err(HttpError::from(error).into()),
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
}

fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// A registry's own words, if it has any.
fn detail(body: &[u8], status: StatusCode) -> String {
    let complaints = serde_json::from_slice::<Complaints>(body).map(|complaints| complaints.errors).unwrap_or_default();
    let said = complaints.first().map(|complaint| match complaint.message.as_str() {
        "" => complaint.code.to_lowercase().replace('_', " "),
        message => message.to_owned(),
    });
    let said = said.map(|said| printable(&said)).filter(|said| !said.is_empty());
    said.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_lowercase())
}

/// What a stranger says, as it may stand in a message.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(DETAIL).collect()
}
