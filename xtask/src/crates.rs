//! Who may use whom: the table of dependencies between our crates, which is exact.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use crate::check::Finding;

/// A crate, the crates of ours that it may use, and what it never uses. Arrows point downwards only.
struct Rule {
    name: &'static str,
    may_use: &'static [&'static str],
    never: &'static [&'static str],
}

const ALL: &[&str] = &[
    "agent",
    "api",
    "controllers",
    "cri",
    "image",
    "infra",
    "layer",
    "network",
    "runtime",
    "services",
    "spec",
    "steps",
    "store",
    "streaming",
    "sys",
    "workloads",
];

const RULES: &[Rule] = &[
    Rule { name: "monopod", may_use: ALL, never: &[] },
    Rule { name: "monopod-api", may_use: &["spec", "steps", "store", "agent", "streaming"], never: &["anyhow"] },
    Rule {
        name: "monopod-cri",
        may_use: &["spec", "image", "runtime", "streaming"],
        never: &["anyhow", "k8s-openapi"],
    },
    // They know the API and nothing else of this engine.
    Rule { name: "monopod-workloads", may_use: &["spec"], never: &["anyhow", "axum"] },
    Rule { name: "monopod-streaming", may_use: &["runtime"], never: &["anyhow", "k8s-openapi"] },
    Rule { name: "monopod-controllers", may_use: &["spec", "store"], never: &["anyhow", "rustix", "axum"] },
    Rule {
        name: "monopod-agent",
        may_use: &["spec", "steps", "store", "image", "runtime"],
        // It asks the servers of containers, as probes and hooks do; it is none.
        never: &["anyhow", "axum"],
    },
    Rule {
        name: "monopod-runtime",
        may_use: &["spec", "steps", "store", "sys", "infra", "image", "network"],
        never: &["anyhow", "k8s-openapi"],
    },
    Rule { name: "monopod-image", may_use: &["spec", "store", "sys", "layer"], never: &["anyhow"] },
    // Bytes in, a directory out.
    Rule { name: "monopod-layer", may_use: &["spec"], never: &["anyhow", "tokio", "serde_json"] },
    Rule { name: "monopod-services", may_use: &["spec", "store", "network"], never: &["anyhow", "rustix", "axum"] },
    Rule { name: "monopod-network", may_use: &["spec", "store", "sys"], never: &["anyhow"] },
    Rule { name: "monopod-infra", may_use: &["sys"], never: &["anyhow", "tokio", "k8s-openapi"] },
    // It reserves space and locks its file; nothing else of Linux is its business.
    Rule { name: "monopod-store", may_use: &["spec"], never: &["anyhow", "libc", "nix", "k8s-openapi"] },
    Rule { name: "monopod-steps", may_use: &[], never: &["anyhow", "tokio", "rustix", "libc"] },
    Rule { name: "monopod-spec", may_use: &[], never: &["anyhow", "tokio", "rustix", "libc", "nix"] },
    Rule { name: "monopod-sys", may_use: &[], never: &["anyhow", "tokio", "tracing"] },
    Rule { name: "e2e", may_use: &["store", "sys"], never: &["tokio"] },
    // A user's program.
    Rule { name: "kube-rs-client", may_use: &[], never: &[] },
    Rule { name: "system-bench", may_use: &["e2e"], never: &[] },
    Rule { name: "xtask", may_use: &[], never: &["tokio"] },
];

/// Compares `cargo metadata` with the table.
pub fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
    let packages = metadata.get("packages").and_then(Value::as_array).context("cargo metadata has no packages")?;
    let mut found = Vec::new();
    for package in packages {
        found.extend(check_package(package, packages));
    }
    Ok(found)
}

fn check_package(package: &Value, all: &[Value]) -> Vec<Finding> {
    let name = text(package, "name");
    let Some(rule) = RULES.iter().find(|rule| rule.name == name) else {
        return vec![Finding::new(name, "no rule says what this crate may use; add it to xtask/src/crates.rs")];
    };
    let mut found = Vec::new();
    for dependency in package.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
        // Tests may use what they like.
        if dependency.get("kind").is_some_and(|kind| !kind.is_null()) {
            continue;
        }
        let used = text(dependency, "name");
        let ours = all.iter().any(|package| text(package, "name") == used);
        let short = used.strip_prefix("monopod-").unwrap_or(used);
        if ours && !rule.may_use.contains(&short) {
            found.push(Finding::new(name, format!("must not use {short:?}; it may use {:?}", rule.may_use)));
        }
        if rule.never.contains(&used) {
            found.push(Finding::new(name, format!("must never use {used:?}")));
        }
    }
    found
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(name: &str, dependencies: &Value) -> Vec<String> {
        let package = json!({"name": name, "dependencies": dependencies});
        let all = [package.clone(), json!({"name": "monopod-sys"}), json!({"name": "monopod-agent"})];
        check_package(&package, &all).into_iter().map(|finding| finding.problem).collect()
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_found() {
        let uses = |name: &str| json!([{"name": name, "kind": null}]);
        assert_eq!(problems("monopod-runtime", &uses("monopod-sys")), Vec::<String>::new());
        assert_eq!(problems("monopod-agent", &uses("monopod-sys")).len(), 1);
        assert_eq!(problems("monopod-runtime", &uses("monopod-agent")).len(), 1);
        assert_eq!(problems("monopod-infra", &uses("tokio")), ["must never use \"tokio\""]);
        assert_eq!(problems("monopod-infra", &json!([{"name": "tokio", "kind": "dev"}])), Vec::<String>::new());
        assert_eq!(problems("monopod-util", &json!([])).len(), 1);
    }
}
