//! Maps and sets in order, from entries in any.
//!
//! `collect()` into them sorts first, with 4 kB of code for each kind of iterator that it is asked of. To insert one after the
//! other is as quick for the few entries that there are of most things.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The last entry of a key wins, as with `collect()`.
pub fn map_of<K: Ord, V>(entries: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    map.extend(entries);
    map
}

/// The same for a JSON object, whose fields are in a map like that.
pub fn object_of(fields: impl IntoIterator<Item = (String, Value)>) -> Map<String, Value> {
    let mut object = Map::new();
    object.extend(fields);
    object
}

/// Each once.
pub fn set_of<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    set.extend(items);
    set
}

/// Sorts as [`slice::sort_by()`] does. That comes to 5 kB of code for each type and order; here there is one sort, of places.
pub fn sort_by<T>(items: &mut [T], order: impl Fn(&T, &T) -> Ordering) {
    let places = in_order(items.len(), &|one, other| match (items.get(one), items.get(other)) {
        (Some(one), Some(other)) => order(one, other),
        _ => Ordering::Equal,
    });
    move_to(items, &places);
}

/// The same by a key of each.
pub fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(items, |one, other| key(one).cmp(&key(other)));
}

/// The same by a key that is made but once of each.
pub fn sort_by_cached_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    let keys: Vec<K> = items.iter().map(key).collect();
    let places = in_order(items.len(), &|one, other| keys.get(one).cmp(&keys.get(other)));
    move_to(items, &places);
}

fn in_order(count: usize, order: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by(|one, other| order(*one, *other));
    places
}

/// Moves to each place what was at the one that is named for it.
fn move_to<T>(items: &mut [T], places: &[usize]) {
    for to in 0..items.len() {
        let mut from = places.get(to).copied().unwrap_or(to);
        // What was there has been moved to where its successor came from.
        while from < to {
            from = places.get(from).copied().unwrap_or(to);
        }
        items.swap(to, from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_as_the_standard_library_does_it() {
        let mut state = 1_u32;
        for count in 0..64 {
            let mut items = Vec::new();
            for place in 0..count {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                items.push((state >> 28, place));
            }
            let mut wanted = items.clone();
            wanted.sort_by_key(|(key, _)| *key);
            let mut others = items.clone();
            sort_by_key(&mut items, |(key, _)| *key);
            assert_eq!(items, wanted, "equal ones stay in their order");
            sort_by_cached_key(&mut others, |(key, _)| *key);
            assert_eq!(others, wanted, "here as well");
        }
    }
}
