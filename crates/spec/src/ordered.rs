//! Maps and sets in order, from entries in any.
//!
//! `collect()` into them sorts first, with 4 kB of code for each kind of iterator that it is asked of. To insert one after the
//! other is as quick for the few entries that there are of most things.

use std::collections::{BTreeMap, BTreeSet};

/// The last entry of a key wins, as with `collect()`.
pub fn map_of<K: Ord, V>(entries: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    for (key, value) in entries {
        map.insert(key, value);
    }
    map
}

/// Each once.
pub fn set_of<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    for item in items {
        set.insert(item);
    }
    set
}
