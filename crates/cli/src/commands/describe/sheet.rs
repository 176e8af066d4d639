//! A page of `Key:  value` lines with aligned values, as describe prints it.

use crate::escape::{multi_line, one_line};
use crate::table::Table;

/// Lines that are aligned when all are known.
#[derive(Debug, Default)]
pub struct Sheet {
    lines: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    /// Values of one key; further ones stand below the first.
    Field { level: usize, key: String, values: Vec<String> },
    /// A title above deeper lines.
    Heading { level: usize, text: String },
    /// Taken as it is.
    Verbatim { text: String },
}

impl Sheet {
    /// One key with its value; nothing to say shows as `<none>`.
    pub fn field(&mut self, level: usize, key: &str, value: &str) {
        self.list(level, key, std::iter::once(value.to_owned()).filter(|value| !value.is_empty()));
    }

    /// One key with its value, left out if there is none.
    pub fn optional(&mut self, level: usize, key: &str, value: &str) {
        if !value.is_empty() {
            self.field(level, key, value);
        }
    }

    /// One key with values below each other.
    pub fn list(&mut self, level: usize, key: &str, values: impl IntoIterator<Item = String>) {
        let mut values: Vec<_> = values.into_iter().map(|value| one_line(&value).into_owned()).collect();
        if values.is_empty() {
            values.push("<none>".to_owned());
        }
        self.lines.push(Line::Field { level, key: format!("{}:", one_line(key)), values });
    }

    /// A title above deeper lines.
    pub fn heading(&mut self, level: usize, text: &str) {
        self.lines.push(Line::Heading { level, text: format!("{}:", one_line(text)) });
    }

    /// A text as it is, safe to show.
    pub fn verbatim(&mut self, text: &str) {
        self.lines.push(Line::Verbatim { text: format!("{}\n", multi_line(text.trim_end())) });
    }

    /// A title with a table below; headings are underlined as kubectl does it.
    pub fn table(&mut self, title: &str, table: &Table) {
        self.heading(0, title);
        let mut underlined = table.clone();
        underlined.rows.insert(0, table.headings.iter().map(|heading| "-".repeat(heading.chars().count())).collect());
        let text = underlined.render().lines().flat_map(|line| ["  ", line, "\n"]).collect();
        self.lines.push(Line::Verbatim { text });
    }

    /// The page.
    pub fn render(&self) -> String {
        let mut output = String::new();
        for (index, line) in self.lines.iter().enumerate() {
            match line {
                Line::Heading { level, text } => output.extend([indent(*level).as_str(), text, "\n"]),
                Line::Verbatim { text } => output.push_str(text),
                Line::Field { level, key, values } => {
                    let width = self.width_around(index, *level);
                    for (row, value) in values.iter().enumerate() {
                        let shown = if row == 0 { key.as_str() } else { "" };
                        let line = format!("{}{shown:width$}  {value}", indent(*level));
                        output.push_str(line.trim_end());
                        output.push('\n');
                    }
                }
            }
        }
        output
    }

    /// The widest key of the fields of the same level in the same section; the top level is one section.
    fn width_around(&self, index: usize, level: usize) -> usize {
        let same = |line: &Line| match line {
            Line::Field { level: other, key, .. } if *other == level => Some(key.chars().count()),
            _ => None,
        };
        let ends = |line: &Line| match line {
            Line::Field { level: other, .. } | Line::Heading { level: other, .. } => *other < level,
            Line::Verbatim { .. } => level > 0,
        };
        let (before, after) = self.lines.split_at(index);
        let above = before.iter().rev().take_while(|line| !ends(line)).filter_map(same).max();
        let below = after.iter().take_while(|line| !ends(line)).filter_map(same).max();
        above.max(below).unwrap_or_default()
    }
}

fn indent(level: usize) -> String {
    "  ".repeat(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_within_their_section() {
        let mut sheet = Sheet::default();
        sheet.field(0, "Name", "web");
        sheet.list(0, "Annotations", ["a: 1".into(), "b:\n2".into()]);
        sheet.heading(0, "Containers");
        sheet.heading(1, "app");
        sheet.field(2, "Image", "x");
        sheet.field(2, "Restart Count", "0");
        sheet.heading(1, "b");
        sheet.field(2, "Id", "");
        sheet.field(0, "QoS", "Burstable");
        insta::assert_snapshot!(sheet.render(), @r"
        Name:         web
        Annotations:  a: 1
                      b:\n2
        Containers:
          app:
            Image:          x
            Restart Count:  0
          b:
            Id:  <none>
        QoS:          Burstable
        ");
    }
}
