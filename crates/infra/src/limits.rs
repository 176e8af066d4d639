//! Resource limits and priority that a daemon was started with, by a shell or a unit, and that no container shall have.

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

use crate::failure::tolerate;

/// All but that of open files, which containers get on their own.
const RESOURCES: [Resource; 15] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Memlock,
    Resource::As,
    Resource::Locks,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Rtprio,
    Resource::Rttime,
];

/// Takes on what the machine's first process has, and the usual priority; containers inherit it.
///
/// A limit that was lowered for good can only be raised with CAP_SYS_RESOURCE, which some machines' root lacks: then as
/// much of it as there is.
pub(crate) fn become_as_the_first_process() {
    tolerate(setpriority_process(None, 0));
    for resource in RESOURCES {
        let Ok(first) = sys::process::limits_of(1, resource as u32) else { continue };
        let wanted = Rlimit { current: first.soft, maximum: first.hard };
        if setrlimit(resource, wanted).is_err() {
            let maximum = getrlimit(resource).maximum;
            tolerate(setrlimit(resource, Rlimit { current: lesser(wanted.current, maximum), maximum }));
        }
    }
}

/// None is no limit.
fn lesser(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
