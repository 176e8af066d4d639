//! Which keys of an object become which files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use spec::k8s_openapi::api::core::v1::KeyToPath;

use crate::atomic_writer::{Payload, PayloadFile};

/// Mode of files for which the pod says nothing.
const DEFAULT_MODE: u32 = 0o644;

/// All keys, or those that `items` names; `missing` words the complaint about a key that is not there.
pub(super) fn select(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: bool,
    missing: impl Fn(&str) -> String,
) -> Result<Payload, String> {
    let mode_of = |mode: Option<i32>| {
        mode.or(default_mode).and_then(|mode| u32::try_from(mode).ok()).map_or(DEFAULT_MODE, |mode| mode & 0o777)
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let file = |(key, content)| (PathBuf::from(key), PayloadFile { content, mode: mode_of(None) });
        return Ok(data.into_iter().map(file).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        let content = match data.get_mut(&item.key) {
            Some(content) => content.clone(),
            None if optional => continue,
            None => return Err(missing(&item.key)),
        };
        payload.insert(PathBuf::from(&item.path), PayloadFile { content, mode: mode_of(item.mode) });
    }
    Ok(payload)
}
