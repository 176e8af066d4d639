//! Columns of text: the tables that the server makes, and our own, laid out as kubectl does it.

use std::borrow::Cow;

use serde_json::Value;

use crate::escape::one_line;
use crate::fields::{Fields as _, plain};

/// Rows under headings.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Table {
    /// The headings.
    pub headings: Vec<String>,
    /// The cells, row by row.
    pub rows: Vec<Vec<String>>,
}

/// Which columns of a server's table are shown.
#[derive(Debug, Default, Clone)]
pub struct Columns<'a> {
    /// Also those that the server marks as less important.
    pub wide: bool,
    /// The namespace, first.
    pub namespace: bool,
    /// All labels, last.
    pub labels: bool,
    /// The kind that is put before each name, as in `pod/web`.
    pub prefix: Cow<'a, str>,
}

/// Widths that only grow, so that the rows of a watch stay below their headings.
#[derive(Debug, Default)]
pub struct Layout {
    widths: Vec<usize>,
}

const GAP: usize = 3;

impl Table {
    /// A table with these headings and no rows.
    pub fn new(headings: &[&str]) -> Self {
        Self { headings: headings.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Takes over a `meta.k8s.io/v1` Table. A watch's later tables may lack definitions: then give the first one's.
    pub fn from_server(table: &Value, definitions: &[Value], columns: &Columns<'_>) -> Self {
        let shown: Vec<(usize, &Value)> = definitions
            .iter()
            .enumerate()
            .filter(|(_, definition)| columns.wide || definition.integer("/priority").unwrap_or_default() == 0)
            .collect();
        let mut headings: Vec<_> =
            shown.iter().map(|(_, definition)| definition.text("/name").to_uppercase()).collect();
        if columns.namespace {
            headings.insert(0, "NAMESPACE".to_owned());
        }
        if columns.labels {
            headings.push("LABELS".to_owned());
        }
        let rows = table.items("/rows").iter().map(|row| server_row(row, &shown, columns)).collect();
        Self { headings, rows }
    }

    /// The whole table as text.
    pub fn render(&self) -> String {
        let mut layout = Layout::default();
        layout.widen(self);
        layout.headings(self) + &layout.rows(self)
    }
}

impl Layout {
    /// Whether nothing has been laid out yet.
    pub fn is_empty(&self) -> bool {
        self.widths.is_empty()
    }

    /// Makes room for what the table holds.
    pub fn widen(&mut self, table: &Table) {
        for row in std::iter::once(&table.headings).chain(&table.rows) {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(one_line(cell).chars().count());
            }
        }
    }

    /// The headings as a line.
    pub fn headings(&self, table: &Table) -> String {
        self.row(&table.headings)
    }

    /// The rows as lines.
    pub fn rows(&self, table: &Table) -> String {
        table.rows.iter().map(|row| self.row(row)).collect()
    }

    fn row(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            let cell = one_line(cell);
            let width = self.widths.get(index).copied().unwrap_or_default();
            line.push_str(&cell);
            if index + 1 < cells.len() {
                line.extend(std::iter::repeat_n(' ', (width + GAP).saturating_sub(cell.chars().count())));
            }
        }
        let mut line = line.trim_end().to_owned();
        line.push('\n');
        line
    }
}

fn server_row(row: &Value, shown: &[(usize, &Value)], columns: &Columns<'_>) -> Vec<String> {
    let cells = row.items("/cells");
    let object = row.at("/object");
    let mut output = Vec::with_capacity(shown.len() + 2);
    if columns.namespace {
        output.push(object.namespace().to_owned());
    }
    for (index, definition) in shown {
        let cell = cells.get(*index).map(plain).unwrap_or_default();
        let is_name = definition.text("/format") == "name";
        output.push(if is_name && !columns.prefix.is_empty() { format!("{}/{cell}", columns.prefix) } else { cell });
    }
    if columns.labels {
        output.push(labels(object));
    }
    output
}

/// Labels as `a=b,c=d`, or `<none>`.
pub fn labels(object: &Value) -> String {
    let pairs: Vec<_> =
        object.entries("/metadata/labels").map(|(key, value)| format!("{key}={}", plain(value))).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> Value {
        json!({"columnDefinitions": [
            {"name": "Name", "format": "name", "priority": 0}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
        "rows": [
            {"cells": ["web", "1/1", "10.85.0.2"], "object": {"metadata": {"namespace": "default", "labels": {"app": "web"}}}},
            {"cells": ["a-longer-name", 2, null], "object": {"metadata": {"namespace": "kube-system"}}}]})
    }

    #[test]
    fn columns_are_chosen_and_aligned() {
        let pods = pods();
        let definitions = pods.items("/columnDefinitions");
        insta::assert_snapshot!(Table::from_server(&pods, definitions, &Columns::default()).render(), @r"
        NAME            READY
        web             1/1
        a-longer-name   2
        ");
        let all = Columns { wide: true, namespace: true, labels: true, prefix: Cow::Borrowed("pod") };
        insta::assert_snapshot!(Table::from_server(&pods, definitions, &all).render(), @r"
        NAMESPACE     NAME                READY   IP          LABELS
        default       pod/web             1/1     10.85.0.2   app=web
        kube-system   pod/a-longer-name   2                   <none>
        ");
    }

    #[test]
    fn odd_tables_do_no_harm() {
        let odd = json!({"columnDefinitions": [{"name": 7}, {"name": "A"}], "rows": [
            {"cells": ["x\u{1b}[2J\ny"]}, {"cells": {"no": "list"}}, 3, {"cells": ["a", {"b": [1]}, "extra"]}]});
        insta::assert_snapshot!(Table::from_server(&odd, odd.items("/columnDefinitions"), &Columns::default()).render(), @r#"
                      A
        x\x1b[2J\ny


        a             {"b":[1]}
        "#);
        assert_eq!(Table::from_server(&json!(null), &[], &Columns::default()).render(), "\n");
    }

    #[test]
    fn the_rows_of_a_watch_stay_below_their_headings() {
        let mut layout = Layout::default();
        let first =
            Table { headings: vec!["NAME".into(), "AGE".into()], rows: vec![vec!["longer".into(), "1s".into()]] };
        layout.widen(&first);
        let later = Table { headings: first.headings.clone(), rows: vec![vec!["web".into(), "2s".into()]] };
        layout.widen(&later);
        assert_eq!(
            layout.headings(&first) + &layout.rows(&first) + &layout.rows(&later),
            "NAME     AGE\nlonger   1s\nweb      2s\n"
        );
    }
}
