//! Request bodies: bounded, complete within a time, JSON or YAML.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use spec::decode::{read_json, read_yaml};

use crate::http::status::{ApiError, chain};
use crate::protobuf;

/// As upstream's `MaxRequestBodyBytes`.
pub const LIMIT: usize = 3 * 1024 * 1024;

/// A body that takes longer is given up.
const TIME: Duration = Duration::from_mins(1);

/// What objects may be written in.
pub const OBJECT_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Reads the whole body.
pub async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let collected = tokio::time::timeout(TIME, Limited::new(body, LIMIT).collect());
    match collected.await {
        Err(_elapsed) => Err(ApiError::slow_body()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large(LIMIT)),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("cannot read the body: {}", chain(error.as_ref())))),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
    }
}

/// Decodes an object. No Content-Type means JSON, as the Python client sends it.
pub fn decode(headers: &HeaderMap, body: &Bytes) -> Result<Value, ApiError> {
    decode_noting(headers, body).map(|(object, _twice)| object)
}

/// The same, with the paths of fields that stand twice.
pub fn decode_noting(headers: &HeaderMap, body: &Bytes) -> Result<(Value, Vec<String>), ApiError> {
    match media_type(headers).as_str() {
        "" | "application/json" => json(body),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(body),
        protobuf::MEDIA_TYPE => {
            let object = protobuf::decode(body);
            object
                .map(|object| (object, Vec::new()))
                .map_err(|error| ApiError::bad_request(format!("invalid protobuf: {error}")))
        }
        _ => Err(ApiError::unsupported_media_type(OBJECT_TYPES)),
    }
}

/// The media type in lower case, without parameters; empty if there is none.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Decodes JSON; `serde_json` itself refuses what is nested deeper than 128 levels.
pub fn json(body: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    read_json(body).map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))
}

/// Decodes one YAML document.
pub fn yaml(body: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    read_yaml(body).map_err(|error| ApiError::bad_request(format!("invalid YAML: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_json_and_yaml_are_refused() {
        let deep = "[".repeat(100_000);
        assert!(json(deep.as_bytes()).is_err());
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        assert!(yaml(deep.as_bytes()).is_err());
    }

    #[test]
    fn yaml_anchors_that_multiply_are_refused() {
        use std::fmt::Write as _;
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(",");
            writeln!(bomb, "a{level}: &a{level} [{aliases}]").unwrap();
        }
        assert!(yaml(bomb.as_bytes()).is_err());
    }

    #[test]
    fn yaml_becomes_the_same_value_as_json() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {b: \"1\"}\n";
        assert_eq!(
            yaml(text.as_bytes()).unwrap(),
            json(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"b":"1"}}"#).unwrap()
        );
    }
}
