//! How long a test waits, and for what the kernel has no event, how.

use std::time::{Duration, Instant};

/// `seconds` on a usual machine; `MONOPOD_TEST_PATIENCE` multiplies it where machines are emulated.
pub fn limit(seconds: u64) -> Duration {
    let factor = std::env::var("MONOPOD_TEST_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    Duration::from_secs(seconds * factor)
}

/// Looks until `look` finds something, and fails the test after `within` with the last reason why not.
///
/// Only for facts that no event tells: a cgroup directory, a link, or a process of another namespace being gone.
/// For objects of the API there is [`crate::TestNode::wait_for`], which watches.
#[track_caller]
pub fn eventually<T>(within: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if Instant::now() >= deadline => panic!("{what}: not within {within:?}: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
