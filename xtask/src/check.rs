//! What a check finds, and how it is told.

use std::fmt;
use std::process::ExitCode;

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// A file or a crate.
    pub place: String,
    /// The rule, and how it is broken.
    pub problem: String,
}

impl Finding {
    /// A finding at `place`.
    pub fn new(place: impl fmt::Display, problem: impl Into<String>) -> Self {
        Self { place: place.to_string(), problem: problem.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// Prints the findings; none is a success.
pub fn report(found: &[Finding]) -> ExitCode {
    for finding in found {
        eprintln!("{finding}");
    }
    println!("xtask check: {} found", found.len());
    if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
