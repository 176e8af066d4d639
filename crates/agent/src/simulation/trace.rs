//! What happened, in words; only kept when somebody is going to read it.

use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};

use runtime::fake::Fact;
use store::{WatchEvent, WatchKind};

use super::model::Moment;

#[derive(Debug, Default)]
pub struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    pub fn kept() -> Self {
        Self { lines: Some(Vec::new()) }
    }

    pub fn line(&mut self, now: Moment, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.3} s  {}", now.true_time.as_secs_f64(), line()));
        }
    }

    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// A number that two runs share only if they did the same.
    pub fn digest(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.lines.hash(&mut hasher);
        hasher.finish()
    }

    pub fn fact(&mut self, now: Moment, fact: &Fact<'_>) {
        self.line(now, || match fact {
            Fact::SandboxMade { uid, attempt, .. } => format!("   sandbox {attempt} of {uid} is made"),
            Fact::SandboxesDied { uid } => format!("   the sandbox of {uid} dies"),
            Fact::SandboxRemoved { uid, .. } => format!("   a sandbox of {uid} is removed"),
            Fact::Created(run) => format!("   {} {} is created", run.name, run.attempt),
            Fact::Started(run) => format!("   {} {} starts ({})", run.name, run.attempt, run.image),
            Fact::StopAsked(run, grace) => format!("   {} {} is told to end within {grace:?}", run.name, run.attempt),
            Fact::Exited(run, code) => format!("   {} {} ends with {code}", run.name, run.attempt),
            Fact::Removed(run) => format!("   {} {} is removed", run.name, run.attempt),
            Fact::Ran(run, command, code) => format!("   {} {} ran {command:?}: {code:?}", run.name, run.attempt),
        });
    }

    pub fn object(&mut self, now: Moment, change: &WatchEvent) {
        self.line(now, || {
            let object = &*change.object.value;
            if change.kind == WatchKind::Deleted {
                return "   the object is gone".to_owned();
            }
            let mut text = format!("   status {}", object["status"]["phase"].as_str().unwrap_or("(none)"));
            if object["metadata"]["deletionTimestamp"].is_string() {
                text.push_str(", being deleted");
            }
            for list in ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"] {
                for status in object["status"][list].as_array().into_iter().flatten() {
                    let state = status["state"].as_object().and_then(|state| state.iter().next());
                    let (state, detail) = state.map_or(("none", ""), |(state, detail)| {
                        (state.as_str(), detail["reason"].as_str().unwrap_or_default())
                    });
                    let ready = if status["ready"] == true { " ready" } else { "" };
                    let (name, count) = (status["name"].as_str().unwrap_or_default(), &status["restartCount"]);
                    // Writing to a String cannot fail.
                    let _ok = write!(text, "; {name} {count} {state} {detail}{ready}");
                }
            }
            text
        });
    }
}
