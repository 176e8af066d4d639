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
    let begin = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if begin.elapsed() >= within => panic!("{what}: not within {within:?}: {reason}"),
            // Soon at first, rarer later: it costs the machine little, and the test at most an eighth more.
            Err(_) => {
                let pause = (begin.elapsed() / 8).clamp(Duration::from_millis(1), Duration::from_millis(50));
                std::thread::sleep(pause);
            }
        }
    }
}
