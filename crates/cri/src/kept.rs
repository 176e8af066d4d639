//! What a caller said of a sandbox or container, kept with the runtime's record of it and told again in status and lists.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost::Message;
use spec::ordered::map_of;

/// The label that carries the message.
const KEY: &str = "cri";

/// The labels for a record.
pub fn keep(message: &impl Message) -> BTreeMap<String, String> {
    map_of([(KEY.to_owned(), BASE64_STANDARD.encode(message.encode_to_vec()))])
}

/// The message of a record; an empty one if the record is not of our making.
pub fn kept<M: Message + Default>(labels: &BTreeMap<String, String>) -> M {
    let bytes = labels.get(KEY).and_then(|text| BASE64_STANDARD.decode(text).ok());
    bytes.and_then(|bytes| M::decode(bytes.as_slice()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::PodSandboxConfig;

    #[test]
    fn what_is_kept_comes_back() {
        let config = PodSandboxConfig {
            hostname: "web".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ..Default::default()
        };
        assert_eq!(kept::<PodSandboxConfig>(&keep(&config)), config);
        assert_eq!(kept::<PodSandboxConfig>(&BTreeMap::new()), PodSandboxConfig::default());
        let damaged = BTreeMap::from([(KEY.to_owned(), "%".to_owned())]);
        assert_eq!(kept::<PodSandboxConfig>(&damaged), PodSandboxConfig::default());
    }
}
