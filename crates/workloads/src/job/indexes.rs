//! Sets of completion indexes as a status writes them: `0,3-5`. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Indexes that are done.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// Reads a status; what is no number of a completion is left out.
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut all = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                all.extend(first.max(0)..=last.min(completions - 1));
            }
        }
        Self(all)
    }

    /// One more is done.
    pub fn insert(&mut self, index: i32) {
        self.0.insert(index);
    }

    /// Whether it is done.
    pub fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    /// How many are done.
    pub fn total(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    /// As a status writes it.
    pub fn write(&self) -> String {
        let mut text = String::new();
        let mut runs: Vec<(i32, i32)> = Vec::new();
        for index in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *index => *last = *index,
                _ => runs.push((*index, *index)),
            }
        }
        for (first, last) in runs {
            let comma = if text.is_empty() { "" } else { "," };
            // Two neighbours are written as two numbers.
            let written = match last - first {
                0 => write!(text, "{comma}{first}"),
                1 => write!(text, "{comma}{first},{last}"),
                _ => write!(text, "{comma}{first}-{last}"),
            };
            debug_assert!(written.is_ok(), "writing to a text does not fail");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_runs() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7,8,10"] {
            assert_eq!(Indexes::parse(text, 100).write(), text);
        }
        let mut indexes = Indexes::parse("0,2,x,5-9", 7);
        assert_eq!((indexes.write().as_str(), indexes.total()), ("0,2,5,6", 4));
        indexes.insert(1);
        assert_eq!((indexes.write().as_str(), indexes.contains(1), indexes.contains(3)), ("0-2,5,6", true, false));
    }
}
