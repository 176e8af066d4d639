//! Which form of the answer a client wants: plain JSON, a Table, or metadata alone.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::http::status::ApiError;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The object itself.
    Object,
    /// `meta.k8s.io/v1` Table: columns made by the server.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata.
    Metadata,
}

impl Form {
    /// Chooses by the Accept header, in the client's order. No header means JSON; a client that prefers protobuf but takes
    /// JSON gets JSON.
    pub fn negotiate(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut wanted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
        if wanted.peek().is_none() {
            return Ok(Self::Object);
        }
        let mut ranges =
            wanted.flat_map(|value| value.split(',')).map(str::trim).filter(|range| !range.is_empty()).peekable();
        if ranges.peek().is_none() {
            return Ok(Self::Object);
        }
        ranges.find_map(Self::of_range).ok_or_else(ApiError::not_acceptable)
    }

    /// Content type of an answer in this form.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Object => "application/json",
            Self::Table => "application/json;as=Table;g=meta.k8s.io;v=v1",
            Self::Metadata => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        }
    }

    fn of_range(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
            return None;
        }
        let (mut form, mut group, mut version) = (None, "", "");
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name {
                "as" => form = Some(value),
                "g" => group = value,
                "v" => version = value,
                _ => {}
            }
        }
        match form {
            None => Some(Self::Object),
            Some("Table") if (group, version) == ("meta.k8s.io", "v1") => Some(Self::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList")
                if (group, version) == ("meta.k8s.io", "v1") =>
            {
                Some(Self::Metadata)
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_range_that_can_be_served_wins() {
        let kubectl_get = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let cases = [
            (None, Some(Form::Object)),
            (Some(""), Some(Form::Object)),
            (Some(kubectl_get), Some(Form::Table)),
            (Some("application/json"), Some(Form::Object)),
            (Some("application/vnd.kubernetes.protobuf,application/json"), Some(Form::Object)),
            (Some("application/vnd.kubernetes.protobuf, */*"), Some(Form::Object)),
            (Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Some(Form::Metadata)),
            (Some("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"), Some(Form::Object)),
            (Some("application/json, */*;q=0.8"), Some(Form::Object)),
            (Some("application/vnd.kubernetes.protobuf"), None),
            (Some("application/json;as=Table;v=v9;g=meta.k8s.io"), None),
        ];
        for (accept, want) in cases {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(Form::negotiate(&headers).ok(), want, "{accept:?}");
        }
    }
}
