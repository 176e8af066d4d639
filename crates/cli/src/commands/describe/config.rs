//! Describes ConfigMaps, Secrets, Namespaces, and whatever else.

use serde_json::Value;

use super::sheet::Sheet;
use super::{describe_head, describe_metadata};
use crate::fields::{Fields as _, plain};

/// A ConfigMap with its texts.
pub fn describe_config_map(sheet: &mut Sheet, object: &Value) {
    describe_head(sheet, object);
    describe_metadata(sheet, object);
    if object.flag("/immutable") {
        sheet.field(0, "Immutable", "true");
    }
    sheet.verbatim("\nData\n====");
    for (key, value) in object.entries("/data") {
        sheet.verbatim(&format!("{key}:\n----\n{}\n\n", plain(value)));
        sheet.verbatim("");
    }
    sheet.verbatim("\nBinaryData\n====");
    for (key, value) in object.entries("/binaryData") {
        sheet.verbatim(&format!("{key}: {} bytes", decoded_length(value)));
    }
    sheet.verbatim("");
}

/// A Secret, of which only the sizes are shown.
pub fn describe_secret(sheet: &mut Sheet, object: &Value) {
    describe_head(sheet, object);
    describe_metadata(sheet, object);
    sheet.field(0, "Type", object.text("/type"));
    sheet.verbatim("\nData\n====");
    for (key, value) in object.entries("/data") {
        sheet.verbatim(&format!("{key}:  {} bytes", decoded_length(value)));
    }
    sheet.verbatim("");
}

/// A Namespace.
pub fn describe_namespace(sheet: &mut Sheet, object: &Value) {
    describe_head(sheet, object);
    describe_metadata(sheet, object);
    sheet.field(0, "Status", object.text("/status/phase"));
}

/// Any object: its metadata, then the rest as YAML.
pub fn describe_other(sheet: &mut Sheet, object: &Value) {
    describe_head(sheet, object);
    describe_metadata(sheet, object);
    let mut rest = object.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.remove("metadata");
    }
    // What came as JSON can always be written as YAML.
    sheet.verbatim(&serde_saphyr::to_string(&rest).unwrap_or_default());
}

/// The bytes that a base64 text stands for.
fn decoded_length(value: &Value) -> usize {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default()).map_or(0, |bytes| bytes.len())
}
