//! For a field that does not exist: the one that was meant.

use super::table::POD;
use super::{Row, Support, row_named};

/// A field of Pods near the unknown one at `path` (`spec.containers[0].comand`): with another case, a letter wrong, left
/// out, or too much, or two exchanged; one more in long names.
pub fn nearest_pod_field(path: &str) -> Option<&'static str> {
    let mut names = path.split('.').map(|segment| segment.split('[').next().unwrap_or_default());
    let wanted = names.next_back()?;
    let mut rows = POD;
    for name in names {
        rows = match row_named(rows, name)?.support {
            Support::Fields(rows) | Support::Items(rows) | Support::Keys(rows) => rows,
            _ => return None,
        };
    }
    nearest(rows, wanted)
}

fn nearest(rows: &'static [Row], wanted: &str) -> Option<&'static str> {
    let limit = if wanted.len() < 4 { 1 } else { 2 };
    let wanted = wanted.to_ascii_lowercase();
    let distances = rows.iter().map(|row| (distance(&row.field.to_ascii_lowercase(), &wanted), row.field));
    let (distance, field) = distances.min()?;
    (distance <= limit).then_some(field)
}

/// Changes that make one of the other: a letter put in, taken out, replaced, or exchanged with its neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, a) in one.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in other.iter().enumerate() {
            let at = |line: &[usize], place: usize| line.get(place).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&last, column) + usize::from(a != b);
            let mut best = replaced.min(at(&last, column + 1) + 1).min(at(&current, column) + 1);
            let is_exchanged = row > 0 && column > 0 && one.get(row - 1) == Some(b) && other.get(column - 1) == Some(a);
            if is_exchanged {
                best = best.min(at(&before_last, column - 1) + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_fields_are_guessed() {
        for (path, wanted) in [
            ("spec.containers[0].comand", Some("command")),
            ("spec.containers[12].iamge", Some("image")),
            ("spec.restartpolicy", Some("restartPolicy")),
            ("spec.container", Some("containers")),
            ("spec.volumes[0].configmap", Some("configMap")),
            ("spec.containers[0].volumeMount", Some("volumeMounts")),
            ("spec.containers[0].env[0].nme", Some("name")),
            ("spec.containers[0].somethingElse", None),
            ("spec.foo", None),
            ("nothing.at.all", None),
            ("", None),
        ] {
            assert_eq!(nearest_pod_field(path), wanted, "{path}");
        }
    }

    #[test]
    fn changes_are_counted() {
        for (one, other, changes) in
            [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("abc", "ab", 1), ("abc", "axcd", 2)]
        {
            assert_eq!(distance(one, other), changes, "{one} {other}");
        }
    }
}
