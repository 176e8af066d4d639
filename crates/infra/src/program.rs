//! The program of a process, made ready before that is cloned: each page of memory that a copy of infra writes to, and be it to
//! make a string, is copied by the kernel first.

use std::ffi::CString;
use std::path::Path;

use rustix::fs::Gid;
use rustix::io::Errno;
use sys::process::ProgramStrings;

use crate::failure::{At, failure};
use crate::protocol::{Failure, ProcessPlan};

/// What execve(2) takes, and the groups that the process gets.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    name: &'a str,
    /// To be tried one after the other.
    paths: Vec<CString>,
    arguments: ProgramStrings,
    environment: ProgramStrings,
    pub(crate) groups: Vec<Gid>,
}

impl<'a> Program<'a> {
    pub(crate) fn of(plan: &'a ProcessPlan) -> Result<Self, Failure> {
        let Some(name) = plan.command.first().filter(|name| !name.is_empty()) else {
            return Err(Errno::NOENT).at("execute an empty command");
        };
        Ok(Self {
            name,
            paths: paths(name, &plan.env)?,
            arguments: c_strings(&plan.command)?.into(),
            environment: c_strings(&plan.env)?.into(),
            groups: plan.groups.iter().map(|&gid| Gid::from_raw(gid)).collect(),
        })
    }

    /// Tries each path as execvp(3) does: a missing one goes on to the next, EACCES is remembered. Returns only with why none is
    /// executed.
    pub(crate) fn execute(&self) -> Failure {
        let mut denied = None;
        let mut last = std::io::Error::from(Errno::NOENT);
        for path in &self.paths {
            let error = sys::process::execve(path, &self.arguments, &self.environment);
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT | Errno::NOTDIR) => last = error,
                Some(Errno::ACCESS) => denied = Some(error),
                _ => return failure("execute", Some(Path::new(self.name)), &error),
            }
        }
        failure("execute", Some(Path::new(self.name)), &denied.unwrap_or(last))
    }
}

/// The name itself if it has a slash, else the name in each directory of the container's `PATH`.
fn paths(name: &str, environment: &[String]) -> Result<Vec<CString>, Failure> {
    if name.contains('/') {
        return c_strings(&[name]);
    }
    let path = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let paths: Vec<String> = path
        .split(':')
        .map(|directory| if directory.is_empty() { format!("./{name}") } else { format!("{directory}/{name}") })
        .collect();
    c_strings(&paths)
}

fn c_strings(texts: &[impl AsRef<str>]) -> Result<Vec<CString>, Failure> {
    texts.iter().map(|text| CString::new(text.as_ref()).map_err(|_nul| Errno::INVAL).at("pass a NUL byte in")).collect()
}
