//! Which fields a message has, as `cargo xtask codegen protobuf` wrote them down.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::OnceLock;

use flate2::read::GzDecoder;

static COMPRESSED: &[u8] = include_bytes!("messages.txt.gz");

/// All messages by their names.
#[derive(Debug, Default)]
pub struct Messages(HashMap<String, Message>);

/// A message.
#[derive(Debug, Default)]
pub struct Message {
    /// JSON shows its `items` alone.
    pub list: bool,
    /// Its fields by number.
    pub fields: HashMap<u32, Field>,
}

/// A field.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// It is a list of these.
    pub repeated: bool,
    /// It is a map from texts to these.
    pub map: bool,
    /// Its fields stand in the message itself.
    pub inline: bool,
    /// What is empty is meant.
    pub keeps_empty: bool,
}

/// What a field holds.
#[derive(Debug)]
pub enum Kind {
    /// A text.
    Text,
    /// Bytes; base64 in JSON.
    Bytes,
    /// A truth.
    Bool,
    /// A whole number.
    Int,
    /// A floating-point number.
    Double,
    /// A message, by its name.
    Message(String),
}

impl Messages {
    /// All of them, unpacked when they are first needed: a few hundred KiB that most daemons never use.
    pub fn all() -> &'static Self {
        static ALL: OnceLock<Messages> = OnceLock::new();
        ALL.get_or_init(|| {
            let mut text = String::new();
            match GzDecoder::new(COMPRESSED).read_to_string(&mut text) {
                Ok(_length) => Self::parse(&text),
                // It is part of the program, so a test would have failed.
                Err(_damaged) => Self::default(),
            }
        })
    }

    /// The message of this name.
    pub fn get(&self, name: &str) -> Option<&Message> {
        self.0.get(name)
    }

    /// The name of the message of a kind. Options are of `meta/v1`, whatever group they are sent in.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&str> {
        let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
        let group = group.split('.').next()?;
        let own = format!("k8s.io.api.{group}.{version}.{kind}");
        let common = format!("k8s.io.apimachinery.pkg.apis.meta.v1.{kind}");
        [own, common].iter().find_map(|name| self.0.get_key_value(name)).map(|(name, _)| name.as_str())
    }

    fn parse(text: &str) -> Self {
        let mut all = HashMap::new();
        let mut name = String::new();
        for line in text.lines() {
            if let Some(field) = line.strip_prefix('\t') {
                if let (Some((number, field)), Some(message)) = (Field::parse(field), all.get_mut(&name)) {
                    let message: &mut Message = message;
                    message.fields.insert(number, field);
                }
            } else {
                let (own, list) = line.strip_suffix(" list").map_or((line, false), |own| (own, true));
                own.clone_into(&mut name);
                all.insert(name.clone(), Message { list, fields: HashMap::new() });
            }
        }
        Self(all)
    }
}

impl Field {
    fn parse(line: &str) -> Option<(u32, Self)> {
        let mut words = line.split(' ');
        let (number, name, kind, marks) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let kind = match kind {
            "string" => Kind::Text,
            "bytes" => Kind::Bytes,
            "bool" => Kind::Bool,
            "int" => Kind::Int,
            "double" => Kind::Double,
            message => Kind::Message(message.to_owned()),
        };
        let marked = |mark| marks.contains(mark);
        let field = Self {
            name: name.to_owned(),
            kind,
            repeated: marked('r'),
            map: marked('m'),
            inline: marked('i'),
            keeps_empty: marked('e'),
        };
        Some((number.parse().ok()?, field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_a_field_names_is_there() {
        let all = Messages::all();
        assert!(all.0.len() > 300, "{}", all.0.len());
        let fields = all.0.values().flat_map(|message| message.fields.values());
        for field in fields {
            if let Kind::Message(name) = &field.kind {
                assert!(all.get(name).is_some(), "{name}");
            }
        }
        assert_eq!(all.of_kind("rbac.authorization.k8s.io/v1", "Role"), Some("k8s.io.api.rbac.v1.Role"));
        assert_eq!(
            all.of_kind("policy/v1", "DeleteOptions"),
            Some("k8s.io.apimachinery.pkg.apis.meta.v1.DeleteOptions")
        );
    }
}
