//! What `docs/security.md` promises must be tested: each test that it names must be one.

use std::path::Path;

use crate::architecture::{inline_code, prose};
use crate::check::Finding;
use crate::sources::{crate_directories, read, rust_files};

const DOCUMENT: &str = "docs/security.md";

/// Looks up each test.
pub fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let document = read(&root.join(DOCUMENT))?;
    let mut code = String::new();
    for directory in crate_directories(root)? {
        for file in rust_files(&directory)? {
            code.push_str(&read(&file)?);
        }
    }
    let named = prose(&document).flat_map(|(number, line)| inline_code(line).map(move |name| (number, name)));
    let tests = named.filter_map(|(number, name)| Some((number, name.strip_suffix("()")?)));
    let missing = tests.filter(|(_, name)| !is_test(&code, name));
    Ok(missing
        .map(|(number, name)| Finding::new(format!("{DOCUMENT}:{number}"), format!("there is no test {name}")))
        .collect())
}

/// A function with an attribute of a test, or one that stands in the list of the end-to-end tests.
fn is_test(code: &str, name: &str) -> bool {
    let declaration = format!("fn {name}(");
    let mut places = code.match_indices(&declaration).map(|(at, _)| at).peekable();
    let exists = places.peek().is_some();
    let has_attribute = |at: usize| {
        let before = code.get(..at).unwrap_or_default();
        let attributes = before.rsplit("\n\n").next().unwrap_or_default();
        attributes.contains("#[test]") || attributes.contains("#[tokio::test")
    };
    places.any(has_attribute) || exists && is_listed(code, name)
}

fn is_listed(code: &str, name: &str) -> bool {
    let lists = code.split("tests! {").skip(1).filter_map(|after| after.split('}').next());
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    lists.flat_map(|list| list.split(move |c| !is_word(c))).any(|listed| listed == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_told_from_a_function() {
        let code = "tests! {\n    listed,\n}\ntests! { short, other }\n\nfn listed(node: &mut TestNode) {}\n\nfn short(n: u8) {}\n\
            fn other(n: u8) {}\n\n#[test]\nfn own() {}\n\nfn plain() {}\n\n#[tokio::test]\nasync fn later() {}\n";
        for (name, expected) in [
            ("listed", true),
            ("short", true),
            ("other", true),
            ("own", true),
            ("later", true),
            ("plain", false),
            ("no", false),
        ] {
            assert_eq!(is_test(code, name), expected, "{name}");
        }
    }
}
