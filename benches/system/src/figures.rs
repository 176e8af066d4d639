//! One thing measured many times: least, middle, and what 95 of 100 stay below.

use std::time::Duration;

/// Measured values, all of one unit.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    values: Vec<f64>,
}

impl Figures {
    /// One more.
    pub fn add(&mut self, value: f64) {
        let place = self.values.partition_point(|known| *known <= value);
        self.values.insert(place, value);
    }

    /// One more time, in milliseconds.
    pub fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1000.0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// The least one.
    pub fn least(&self) -> f64 {
        self.values.first().copied().unwrap_or(f64::NAN)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.rank(50)
    }

    /// The smallest value that `percent` of all do not exceed (nearest rank).
    pub fn rank(&self, percent: usize) -> f64 {
        let place = (self.values.len() * percent).div_ceil(100).max(1) - 1;
        self.values.get(place).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(values: impl Iterator<Item = u32>) -> Figures {
        let mut figures = Figures::default();
        values.for_each(|value| figures.add(f64::from(value)));
        figures
    }

    #[test]
    fn ranks_are_the_nearest_in_whatever_order_values_come() {
        let figures = figures((1..=20).rev());
        assert_eq!((figures.least(), figures.median(), figures.rank(95)), (1.0, 10.0, 19.0));
    }

    #[test]
    fn one_value_is_all_of_them() {
        let figures = figures(std::iter::once(7));
        assert_eq!((figures.least(), figures.median(), figures.rank(95), figures.count()), (7.0, 7.0, 7.0, 1));
    }
}
