//! `docs/pod-fields.md` from the table, and the proof that the table is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Pod;

use super::discover::fields_of;
use super::table::POD;
use super::{Row, Support};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/pod-fields.md");

const INTRODUCTION: &str = "\
# What each field of a Pod does here

Generated from the table in `crates/spec/src/support/table.rs`; a test compares. To write it anew:
`UPDATE_DOCS=1 cargo test -p monopod-spec pod_fields_document`.

A field that is not honoured is refused by name when the Pod is created; it is never ignored. Empty lists, maps and
texts count as absent. Fields mean what they mean in Kubernetes; a note says where something differs.

| field | honoured | note |
|---|---|---|
";

#[test]
fn pod_fields_document_is_the_table() {
    let mut document = INTRODUCTION.to_owned();
    write_rows(&mut document, "", POD);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(DOCUMENT, &document).unwrap();
    }
    let kept = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(kept == document, "docs/pod-fields.md is not what the table says: run with UPDATE_DOCS=1 and commit it");
}

#[test]
fn each_field_of_kubernetes_has_a_row_and_each_row_is_a_field() {
    let known = fields_of::<Pod>();
    assert!(known["spec.containers[]"].contains(&"image"), "fields are found");
    let mut found = Rows::default();
    found.collect("", POD);
    for (path, names) in found.by_path {
        let of_type: BTreeSet<&str> =
            known.get(&path).unwrap_or_else(|| panic!("no type at {path}")).iter().copied().collect();
        assert_eq!(names, of_type, "the rows of {path:?} against the fields of its type");
    }
    for leaf in found.leaves {
        let is_object = known.contains_key(&leaf) || known.contains_key(&format!("{leaf}[]"));
        assert!(
            !is_object,
            "{leaf} is an object: a field that Kubernetes adds to it would be ignored; list its fields"
        );
    }
}

/// The fields that have rows, by the path of their object, and the paths that are honoured as a whole.
#[derive(Default)]
struct Rows {
    by_path: BTreeMap<String, BTreeSet<&'static str>>,
    leaves: Vec<String>,
}

impl Rows {
    fn collect(&mut self, path: &str, rows: &'static [Row]) {
        let names: BTreeSet<&str> = rows.iter().map(|row| row.field).collect();
        assert_eq!(names.len(), rows.len(), "{path} has a field twice");
        self.by_path.insert(path.to_owned(), names);
        for row in rows {
            let path = joined(path, row.field);
            match row.support {
                Support::Fields(below) => self.collect(&path, below),
                Support::Items(below) => self.collect(&format!("{path}[]"), below),
                Support::Yes => self.leaves.push(path),
                Support::Keys(_) | Support::Unless(_) | Support::Dropped | Support::No | Support::NotEvenEmpty => {}
            }
        }
    }
}

fn joined(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

fn write_rows(document: &mut String, path: &str, rows: &'static [Row]) {
    for row in rows {
        let field = joined(path, row.field);
        let honoured = match row.support {
            Support::Fields(below) => {
                write_rows(document, &field, below);
                continue;
            }
            // Init containers have the same rows.
            Support::Items(_) if row.field == "initContainers" => {
                "as `spec.containers`, one after another; no probes and no lifecycle".to_owned()
            }
            Support::Items(below) => {
                write_rows(document, &format!("{field}[]"), below);
                continue;
            }
            Support::Keys(below) => {
                for key in below {
                    write_row(document, &format!("{field}[{}]", key.field), &word(key), key.note);
                }
                write_row(document, &format!("{field}[…]"), "**no**", "all other resources");
                continue;
            }
            _ => word(row),
        };
        write_row(document, &field, &honoured, row.note);
    }
}

fn write_row(document: &mut String, field: &str, honoured: &str, note: &str) {
    writeln!(document, "| `{field}` | {honoured} | {note} |").unwrap();
}

fn word(row: &Row) -> String {
    match &row.support {
        Support::Yes | Support::Unless(_) | Support::Fields(_) | Support::Items(_) | Support::Keys(_) => {
            "yes".to_owned()
        }
        Support::Dropped => "dropped".to_owned(),
        Support::No | Support::NotEvenEmpty => "**no**".to_owned(),
    }
}
