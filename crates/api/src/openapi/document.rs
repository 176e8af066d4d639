//! The document of one group and version.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spec::ordered::set_of;

use crate::openapi::paths;
use crate::openapi::schemas::Schemas;

#[derive(Serialize)]
struct Document<'a> {
    openapi: &'static str,
    info: Value,
    paths: BTreeMap<String, Value>,
    components: Components<'a>,
}

#[derive(Serialize)]
struct Components<'a> {
    schemas: BTreeMap<&'a str, &'a RawValue>,
}

/// Writes the document of `api/v1` or `apis/<group>/<version>`.
pub fn document(path: &str) -> io::Result<Bytes> {
    let schemas = Schemas::unpack()?;
    // DeleteOptions are the body of each delete.
    let kinds = set_of(paths::kinds(path).chain([("", "v1", "DeleteOptions")]));
    let components = Components { schemas: schemas.of(&kinds)? };
    let info = json!({"title": "Kubernetes", "version": env!("CARGO_PKG_VERSION")});
    Ok(serde_json::to_vec(&Document { openapi: "3.0.0", info, paths: paths::paths(path), components })?.into())
}

/// Names the content of a document without making it: the schemas change with the version, the paths with the kinds.
pub fn hash(path: &str) -> String {
    let paths = crate::render::encode(&paths::paths(path));
    digest([env!("CARGO_PKG_VERSION").as_bytes(), &super::schemas::digest(), paths.as_ref()])
}

/// A digest in hexadecimal, as upstream's hashes look.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    use std::fmt::Write as _;
    let hash = parts.into_iter().fold(Sha256::new(), Sha256::chain_update).finalize();
    hash.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _written = write!(text, "{byte:02X}");
        text
    })
}
