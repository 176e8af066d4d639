//! `check`: whether this machine can run Pods, found out by trying; what is missing or in the way, and the remedy.

mod cgroups;
mod firewall;
mod ids;
mod kernel;
mod limits;
mod machine;
mod network;
mod place;
mod privileges;

pub use kernel::require as require_kernel;
pub use privileges::tell_withheld;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::daemon::Place;
use crate::errors::ExitStatus;
use crate::output::{Document, Output};
use machine::Machine;

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    place: Place,
    /// The form: a document instead of lines
    #[arg(short, long, value_name = "FORM")]
    output: Option<Document>,
}

/// What one look has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    level: Level,
    what: String,
    remedy: Option<String>,
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    /// Something will not work, but Pods will run.
    Warn,
    /// No Pod will run.
    Fail,
}

impl Finding {
    fn ok(what: impl Into<String>) -> Self {
        Self { level: Level::Ok, what: what.into(), remedy: None }
    }

    fn warn(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warn, what: what.into(), remedy: Some(remedy.into()) }
    }

    fn fail(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Fail, what: what.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks at everything, prints each finding, and fails if no Pod could run.
pub fn check(arguments: &CheckArgs) -> Result<()> {
    let mut findings = Vec::new();
    if rustix::process::geteuid().is_root() {
        let machine = Machine::here();
        findings.push(Finding::ok("running as root"));
        findings.extend(privileges::look(&machine));
        findings.extend(kernel::look());
        findings.extend(ids::look(&machine));
        findings.extend(cgroups::look(&machine));
        findings.extend(network::look(&arguments.place));
        findings.extend(firewall::look(&machine, &arguments.place.pod_cidr));
        findings.extend(limits::look(&machine));
        findings.extend(place::look(&arguments.place));
    } else {
        findings.push(Finding::fail(
            "not running as root: namespaces, mounts and the network can't be tried",
            "sudo monopod check",
        ));
    }
    let mut out = Output::stdout();
    match arguments.output {
        Some(form) => out.document(&document(&findings), form)?,
        None => out.text(&report(&findings))?,
    }
    out.flush()?;
    if is_able(&findings) { Ok(()) } else { Err(ExitStatus(1).into()) }
}

fn is_able(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level != Level::Fail)
}

fn document(findings: &[Finding]) -> Value {
    let finding = |finding: &Finding| {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warn => "warning",
            Level::Fail => "failure",
        };
        match &finding.remedy {
            Some(remedy) => json!({"level": level, "what": finding.what, "remedy": remedy}),
            None => json!({"level": level, "what": finding.what}),
        }
    };
    json!({"able": is_able(findings), "findings": findings.iter().map(finding).collect::<Vec<_>>()})
}

fn report(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        text.extend([mark, "  ", &finding.what, "\n"]);
        if let Some(remedy) = &finding.remedy {
            text.extend(["      remedy: ", remedy, "\n"]);
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let verdict = match (count(Level::Fail), count(Level::Warn)) {
        (0, 0) => "This machine can run Pods.\n".to_owned(),
        (0, warnings) => format!("This machine can run Pods; {} may not work.\n", things(warnings)),
        (1, _) => "This machine can't run Pods yet: one thing is missing.\n".to_owned(),
        (failures, _) => format!("This machine can't run Pods yet: {failures} things are missing.\n"),
    };
    text + &verdict
}

fn things(count: usize) -> String {
    if count == 1 { "one thing".to_owned() } else { format!("{count} things") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_has_its_line_and_remedy() {
        let findings = [Finding::ok("running as root"), Finding::warn("a", "b"), Finding::fail("c", "d")];
        insta::assert_snapshot!(report(&findings), @r"
        ok    running as root
        warn  a
              remedy: b
        FAIL  c
              remedy: d
        This machine can't run Pods yet: one thing is missing.
        ");
        let able = json!({"able": true, "findings": [{"level": "warning", "what": "a", "remedy": "b"}]});
        assert_eq!(document(&[Finding::warn("a", "b")]), able);
        assert_eq!(document(&findings)["able"], false);
        assert!(report(&[Finding::warn("a", "b")]).ends_with("This machine can run Pods; one thing may not work.\n"));
    }
}
