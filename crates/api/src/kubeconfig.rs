//! kubeconfig files: how a client finds the server, trusts it, and says who it is.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use serde_json::{Value, json};
use spec::Timestamp;

use crate::access::MASTERS;
use crate::tls::{Authority, AuthorityError};

/// Name of the cluster, and of the administrator's context.
pub const CLUSTER: &str = "monopod";

/// How long a user's certificate is good for.
const LIFE: SignedDuration = SignedDuration::from_hours(24 * 365);

/// A user for a kubeconfig.
#[derive(Debug, Clone, Copy)]
pub struct User<'a> {
    /// The name that bindings use.
    pub name: &'a str,
    /// The group that bindings use.
    pub group: Option<&'a str>,
}

/// The user that may do everything.
pub const ADMIN: User<'static> = User { name: "monopod-admin", group: Some(MASTERS) };

/// A kubeconfig of one context, with a certificate made for it.
pub fn kubeconfig(
    authority: &Authority,
    server: &str,
    user: User<'_>,
    now: Timestamp,
) -> Result<Value, AuthorityError> {
    let until = now.saturating_add(LIFE).unwrap_or(Timestamp::MAX);
    let signed = authority.sign_client(user.name, user.group, until)?;
    let encode = |pem: &str| STANDARD.encode(pem);
    let context = if user.name == ADMIN.name { CLUSTER.to_owned() } else { format!("{}@{CLUSTER}", user.name) };
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": CLUSTER,
            "cluster": {"server": server, "certificate-authority-data": encode(authority.certificate_pem())},
        }],
        "users": [{
            "name": user.name,
            "user": {
                "client-certificate-data": encode(&signed.certificate_pem),
                "client-key-data": encode(&signed.key_pem),
            },
        }],
        "contexts": [{"name": context, "context": {"cluster": CLUSTER, "user": user.name}}],
        "current-context": context,
    }))
}

/// Writes a kubeconfig for its owner alone; it is there whole or not at all.
pub fn write_kubeconfig(path: &Path, config: &Value) -> io::Result<()> {
    let text = serde_saphyr::to_string(config).map_err(io::Error::other)?;
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes()).inspect_err(|_| drop(fs::remove_file(&fresh)))?;
    fs::rename(&fresh, path)
}
