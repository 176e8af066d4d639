//! One kind's objects under the names of another: an Event of `events.k8s.io` is one of `v1` with fields renamed.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::kinds::Kind;

impl Kind {
    /// Whether clients get the objects of this kind as they are stored.
    pub fn is_shown_as_stored(&self) -> bool {
        self.renames.is_empty()
    }

    /// A stored object as this kind shows it.
    pub fn shown<'a>(&self, stored: &'a Value) -> Cow<'a, Value> {
        if self.is_shown_as_stored() {
            return Cow::Borrowed(stored);
        }
        let pairs = self.renames.iter().copied();
        Cow::Owned(renamed(stored.clone(), pairs, &self.api_version()))
    }

    /// An object of this kind as it is stored, under the API version of the kind that owns it.
    pub fn stored(&self, shown: Value, api_version: &str) -> Value {
        renamed(shown, self.renames.iter().map(|(stored, shown)| (*shown, *stored)), api_version)
    }
}

fn renamed<'a>(mut object: Value, pairs: impl Iterator<Item = (&'a str, &'a str)>, api_version: &str) -> Value {
    if let Some(fields) = object.as_object_mut() {
        let moved: Vec<(&str, Value)> = pairs.filter_map(|(from, to)| Some((to, fields.remove(from)?))).collect();
        fields.extend(moved.into_iter().map(|(to, value)| (to.to_owned(), value)));
        fields.insert("apiVersion".to_owned(), json!(api_version));
    }
    object
}
