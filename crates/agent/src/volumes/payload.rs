//! Which keys of an object become which files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use spec::k8s_openapi::api::core::v1::KeyToPath;
use spec::ordered::map_of;

use crate::atomic_writer::{Payload, PayloadFile};

/// What a volume says of the keys of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a> {
    /// Those that become files; all without it.
    pub(super) items: Option<&'a [KeyToPath]>,
    /// `defaultMode`.
    pub(super) default_mode: Option<i32>,
    /// Whether object and keys may be missing.
    pub(super) optional: Option<bool>,
}

/// Mode of files for which the pod says nothing.
const DEFAULT_MODE: u32 = 0o644;

/// The file's own mode, or else the volume's.
pub(super) fn file_mode(own: Option<i32>, default_mode: Option<i32>) -> u32 {
    own.or(default_mode).and_then(|mode| u32::try_from(mode).ok()).map_or(DEFAULT_MODE, |mode| mode & 0o777)
}

/// All keys, or those that `items` names; `missing` words the complaint about a key that is not there.
pub(super) fn select(
    mut data: BTreeMap<String, Vec<u8>>,
    keys: Keys<'_>,
    missing: impl Fn(&str) -> String,
) -> Result<Payload, String> {
    let mode_of = |mode: Option<i32>| file_mode(mode, keys.default_mode);
    let Some(items) = keys.items.filter(|items| !items.is_empty()) else {
        let file = |(key, content)| (PathBuf::from(key), PayloadFile { content, mode: mode_of(None), user: None });
        return Ok(map_of(data.into_iter().map(file)));
    };
    let mut payload = Payload::new();
    for item in items {
        let content = match data.get_mut(&item.key) {
            Some(content) => content.clone(),
            None if keys.optional == Some(true) => continue,
            None => return Err(missing(&item.key)),
        };
        payload.insert(PathBuf::from(&item.path), PayloadFile { content, mode: mode_of(item.mode), user: None });
    }
    Ok(payload)
}
