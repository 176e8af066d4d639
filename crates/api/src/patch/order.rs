//! `$setElementOrder`: in which order a merged list stands.

use serde_json::Value;

use crate::patch::keys::ListRule;

/// Puts the elements that `order` names into its order. Those that only the server knew keep their place relative to
/// what stood there before; what is new comes after them.
pub fn arrange(list: &mut Vec<Value>, before: &[Value], order: &[Value], rule: ListRule) {
    let place = |element: &Value, among: &[Value]| {
        let wanted = identity(element, rule)?;
        among.iter().position(|other| identity(other, rule) == Some(wanted))
    };
    let (mut named, others): (Vec<Value>, Vec<Value>) =
        list.drain(..).partition(|element| place(element, order).is_some());
    spec::ordered::sort_by_key(&mut named, |element| place(element, order));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let next = match (named.peek(), others.peek()) {
            (Some(left), Some(right)) => match (place(left, before), place(right, before)) {
                (Some(left), Some(right)) if left < right => named.next(),
                _ => others.next(),
            },
            (Some(_), None) => named.next(),
            (None, _) => others.next(),
        };
        match next {
            Some(element) => list.push(element),
            None => return,
        }
    }
}

/// What makes an element of a list the same as another.
pub fn identity(element: &Value, rule: ListRule) -> Option<&Value> {
    match rule {
        ListRule::ByKey(key) => element.get(key),
        ListRule::Set => Some(element),
        ListRule::Replace => None,
    }
}
