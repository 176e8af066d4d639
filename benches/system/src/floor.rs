//! The floor: what the bare kernel needs for the same work, by a C program that is built when it is needed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::material::{Image, Lines};
use crate::report::{Engine, Report};
use crate::works;

/// The built floor.
#[derive(Debug)]
pub struct Floor {
    directory: PathBuf,
    /// Of the lines it has.
    megabytes: usize,
}

impl Floor {
    /// One that was built before: `benches/system/floor/build` does it, too.
    pub fn built(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), megabytes: 0 }
    }

    /// Builds it; `None` without a compiler or busybox.
    pub fn build(directory: &Path) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("floor/build");
        let built = Command::new(script).arg(directory).output();
        match built {
            Ok(output) if output.status.success() => Some(Self::built(directory)),
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

    /// From now on it has these lines.
    pub fn take_lines(&mut self, lines: &Lines) {
        for file in [lines.file(), lines.archive()] {
            std::os::unix::fs::symlink(&file, self.directory.join(file.file_name().unwrap())).unwrap();
        }
        self.megabytes = lines.megabytes;
    }

    /// What its variants are called here.
    fn work(&self, variant: &str) -> Option<String> {
        Some(match variant {
            "start cold" => works::START_COLD.to_owned(),
            "start pooled" => works::START.to_owned(),
            "start all ahead" => works::START_AHEAD.to_owned(),
            "stop" => works::GONE.to_owned(),
            "exec" => works::EXEC.to_owned(),
            "logs" => works::logs(self.megabytes),
            "cat" => works::exec_output(self.megabytes),
            "tcp" => works::forward(self.megabytes),
            "tar out" => works::copy_out(self.megabytes),
            "tar in" => works::copy_in(self.megabytes),
            _ => return None,
        })
    }

    /// Measures one of its tests so often.
    pub fn measure(&self, test: &str, times: usize, report: &mut Report) {
        let program = self.directory.join("floor");
        let output = Command::new(program).arg(&self.directory).args([test, &times.to_string()]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let mut fields = line.split('\t');
            let name = fields.next().unwrap_or_default();
            let Some(work) = self.work(name) else { continue };
            for micros in fields {
                report.add(&work, "ms", Engine::Floor, micros.parse::<f64>().unwrap() / 1000.0);
            }
        }
    }
}

/// What every engine does with a gzipped layer before anything else: gzip's own time for it, as far as `/dev/null`.
pub fn gunzip(image: &Image, report: &mut Report) {
    let begin = Instant::now();
    let status = Command::new("gzip").arg("-dc").arg(&image.layer).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "gzip: {status}");
    report.add_time(&works::load(image.megabytes), Engine::Floor, begin.elapsed());
}
