//! Times of one thing measured many times: least, middle, and what 95 of 100 stay below.

use std::time::Duration;

/// Measured times.
#[derive(Debug, Default)]
pub struct Figures {
    times: Vec<Duration>,
}

impl Figures {
    /// One more.
    pub fn add(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// Prints a line of the table; a single time has one column.
    pub fn print(mut self, what: &str) {
        self.times.sort_unstable();
        let columns = match self.times.as_slice() {
            [] => return,
            [one] => vec![*one],
            times => vec![times[0], rank(times, 50), rank(times, 95)],
        };
        let columns: Vec<String> =
            columns.iter().map(|time| format!("{:>7.2} ms", time.as_secs_f64() * 1000.0)).collect();
        println!("{what:<56}{}", columns.concat());
    }
}

/// The smallest time that `percent` of the sorted `times` do not exceed (nearest rank).
fn rank(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent).div_ceil(100).max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let times: Vec<_> = (1..=20).map(Duration::from_millis).collect();
        assert_eq!(rank(&times, 50), Duration::from_millis(10));
        assert_eq!(rank(&times, 95), Duration::from_millis(19));
        assert_eq!(rank(&times[..1], 95), Duration::from_millis(1));
    }
}
