//! What `docs/ARCHITECTURE.md` names must exist: files, functions and types in inline code.

use std::path::Path;

use crate::check::Finding;
use crate::sources::{crate_directories, read, rust_files};

const DOCUMENT: &str = "docs/ARCHITECTURE.md";

/// A name in inline code that can be looked up.
#[derive(Debug, PartialEq, Eq)]
enum Name<'a> {
    /// Such as `crates/infra/src/launch.rs`, or a directory.
    Path(&'a str),
    /// Such as `run_pod_sandbox()` or `Agent::start()`; the last part is the function.
    Function(&'a str),
    /// Such as `PodSandboxConfig`.
    Type(&'a str),
}

/// Looks up each name.
pub fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let document = read(&root.join(DOCUMENT))?;
    let mut code = String::new();
    for directory in crate_directories(root)? {
        for file in rust_files(&directory)? {
            code.push_str(&read(&file)?);
        }
    }
    let mut found = Vec::new();
    for (number, line) in prose(&document) {
        for name in inline_code(line).filter_map(classify) {
            if !exists(root, &code, &name) {
                found.push(Finding::new(format!("{DOCUMENT}:{number}"), format!("{name:?} does not exist")));
            }
        }
    }
    Ok(found)
}

/// The numbered lines outside of fenced blocks.
pub fn prose(document: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    document.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// What stands between back quotes.
pub fn inline_code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn classify(text: &str) -> Option<Name<'_>> {
    let roots = ["crates/", "tests/", "xtask/", "docs/", "benches/", "demo/"];
    if roots.iter().any(|root| text.starts_with(root)) {
        return Some(Name::Path(text));
    }
    if let Some(path) = text.strip_suffix("()") {
        return path.rsplit("::").next().filter(|name| is_word(name)).map(Name::Function);
    }
    let last = text.rsplit("::").next()?;
    let camel = last.starts_with(|first: char| first.is_ascii_uppercase()) && last.contains(|c: char| c.is_lowercase());
    // A path such as `Runtime::events` names a function or a variant, which the part before it leads to.
    (camel && is_word(last) && text.chars().any(|c| c == ':' || c.is_ascii_uppercase())).then_some(Name::Type(last))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn exists(root: &Path, code: &str, name: &Name<'_>) -> bool {
    match name {
        Name::Path(path) => root.join(path).exists(),
        Name::Function(function) => {
            [format!("fn {function}("), format!("fn {function}<")].iter().any(|f| code.contains(f))
        }
        Name::Type(name) => {
            // A declaration, or a variant in its enum.
            let declared = ["struct", "enum", "trait", "type"]
                .iter()
                .any(|kind| follows(code, &format!("{kind} {name}"), |next| !next.is_alphanumeric() && next != '_'));
            declared || follows(code, &format!("\n    {name}"), |next| matches!(next, ',' | ' ' | '(' | '{'))
        }
    }
}

/// Whether `text` stands in `code` before a character that `end` takes.
fn follows(code: &str, text: &str, end: impl Fn(char) -> bool) -> bool {
    code.match_indices(text)
        .any(|(at, found)| code.get(at + found.len()..).and_then(|rest| rest.chars().next()).is_some_and(&end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_words() {
        let table = [
            ("crates/infra/src/lib.rs", Some(Name::Path("crates/infra/src/lib.rs"))),
            ("Agent::start()", Some(Name::Function("start"))),
            ("compute_pod_actions()", Some(Name::Function("compute_pod_actions"))),
            ("PodSandboxConfig", Some(Name::Type("PodSandboxConfig"))),
            ("ContainerState::Exited", Some(Name::Type("Exited"))),
            ("kubectl apply", None),
            ("infra", None),
            ("SIGTERM", None),
            ("/etc/hosts", None),
        ];
        for (text, expected) in table {
            assert_eq!(classify(text), expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_exist_is_found() {
        let code = "pub struct PodWorker {\n}\npub enum State {\n    Exited(Exit),\n}\nfn sync_pod<T>(x: T) {}\nfn stop(now: bool) {}";
        let has = |name| exists(Path::new("/"), code, &name);
        assert!(has(Name::Type("PodWorker")) && has(Name::Type("Exited")) && has(Name::Function("sync_pod")));
        assert!(has(Name::Function("stop")));
        assert!(!has(Name::Type("Pod")) && !has(Name::Type("Worker")) && !has(Name::Function("sync")));
    }

    #[test]
    fn fenced_blocks_are_pictures() {
        let document = "see `A`\n```\n`B`\n```\n`C` and `D`";
        let names: Vec<_> = prose(document).flat_map(|(_, line)| inline_code(line)).collect();
        assert_eq!(names, ["A", "C", "D"]);
    }
}
