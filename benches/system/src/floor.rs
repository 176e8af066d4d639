//! The floor: what the bare kernel needs for the same work, by a C program that is built when it is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::report::{Engine, Report};

/// The built floor.
#[derive(Debug)]
pub struct Floor {
    directory: PathBuf,
}

/// What its variants are called here.
const WORKS: [(&str, &str); 6] = [
    ("start cold", crate::works::START_COLD),
    ("start pooled", crate::works::START),
    ("start all ahead", crate::works::START_AHEAD),
    ("stop", crate::works::GONE),
    ("exec", crate::works::EXEC),
    ("logs", crate::works::LOGS),
];

impl Floor {
    /// Builds it; `None` without a compiler or busybox.
    pub fn build(directory: &Path) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("floor/build");
        let built = Command::new(script).arg(directory).output();
        match built {
            Ok(output) if output.status.success() => Some(Self { directory: directory.to_owned() }),
            Ok(output) => {
                println!("no floor: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("no floor: {error}");
                None
            }
        }
    }

    /// Measures one of its tests so often.
    pub fn measure(&self, test: &str, times: usize, report: &mut Report) {
        let program = self.directory.join("floor");
        let output = Command::new(program).arg(&self.directory).args([test, &times.to_string()]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let mut fields = line.split('\t');
            let name = fields.next().unwrap_or_default();
            let Some((_, work)) = WORKS.iter().find(|(known, _)| *known == name) else { continue };
            for micros in fields {
                report.add(work, "ms", Engine::Floor, micros.parse::<f64>().unwrap() / 1000.0);
            }
        }
    }
}
