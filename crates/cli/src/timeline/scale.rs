//! Where on a line of so many columns a time lies. Long quiet stretches are cut short, so that milliseconds of a start
//! are still seen beside hours of running. Pure.

use k8s_openapi::jiff::Timestamp;

use super::life::Life;

/// A stretch in which nothing turns gets at most this share of the line.
const QUIET_SHARE: f64 = 0.3;

/// The map from time to columns.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Times at which something turns, ascending, with the columns where they lie.
    knots: Vec<(Timestamp, f64)>,
    /// Stretches that are drawn shorter than they are, by their columns.
    pub cuts: Vec<(f64, f64)>,
}

impl Scale {
    /// A scale for a life on `width` columns.
    pub fn new(life: &Life, width: f64) -> Self {
        let mut times: Vec<Timestamp> = vec![life.from, life.to];
        times.extend(life.lanes.iter().flat_map(|lane| lane.stretches.iter().map(|stretch| stretch.from)));
        times.sort_unstable();
        times.dedup();
        let lengths: Vec<f64> = times.iter().zip(times.iter().skip(1)).map(|(a, b)| seconds(*a, *b)).collect();
        let shares = shares(&lengths);
        let linear: f64 = lengths.iter().sum();
        let (mut knots, mut cuts, mut column) = (Vec::new(), Vec::new(), 0.0);
        for ((time, length), share) in times.iter().zip(&lengths).zip(&shares) {
            knots.push((*time, column));
            let next = column + share * width;
            // Much shorter than in proportion, and worth a mark.
            if share * linear < length * 0.5 {
                cuts.push((column, next));
            }
            column = next;
        }
        knots.push((life.to, width));
        Self { knots, cuts }
    }

    /// The column of a time, with a fraction.
    pub fn column(&self, time: Timestamp) -> f64 {
        let next = self.knots.partition_point(|(knot, _)| *knot <= time);
        match (next.checked_sub(1).and_then(|before| self.knots.get(before)), self.knots.get(next)) {
            (Some((from, start)), Some((to, end))) => {
                let length = seconds(*from, *to);
                if length > 0.0 { start + (end - start) * seconds(*from, time) / length } else { *start }
            }
            (Some((_, last)), None) => *last,
            (None, _) => 0.0,
        }
    }

    /// The times at which something turns, with their columns.
    pub fn turns(&self) -> impl Iterator<Item = (Timestamp, f64)> {
        self.knots.iter().copied()
    }
}

/// The part of the line that each stretch gets: in proportion, but never more than [`QUIET_SHARE`] unless there are too
/// few of them to fill it.
fn shares(lengths: &[f64]) -> Vec<f64> {
    let mut capped = vec![false; lengths.len()];
    loop {
        let free: f64 = lengths.iter().zip(&capped).filter(|(_, capped)| !**capped).map(|(length, _)| length).sum();
        let count = capped.iter().filter(|capped| **capped).count();
        let room = 1.0 - QUIET_SHARE * f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        if free <= 0.0 || room <= 0.0 {
            // All are long: what is free takes nothing, the long ones share the line.
            let each = 1.0 / f64::from(u32::try_from(count.max(1)).unwrap_or(u32::MAX));
            return capped.iter().map(|capped| if *capped { each } else { 0.0 }).collect();
        }
        let too_long = lengths
            .iter()
            .zip(&capped)
            .position(|(length, capped)| !*capped && length / free * room > QUIET_SHARE + f64::EPSILON);
        if let Some(flag) = too_long.and_then(|index| capped.get_mut(index)) {
            *flag = true;
        } else {
            let share = |(length, capped): (&f64, &bool)| if *capped { QUIET_SHARE } else { length / free * room };
            return lengths.iter().zip(&capped).map(share).collect();
        }
    }
}

/// Seconds from one time to a later one.
pub fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_quiet_stretch_leaves_room_for_the_rest() {
        let got = shares(&[0.010, 0.005, 0.020, 3600.0]);
        assert!((got.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{got:?}");
        assert!((got[3] - QUIET_SHARE).abs() < 1e-9 && got[2] <= QUIET_SHARE + 1e-9, "{got:?}");
        assert!(got[0] > got[1], "{got:?}");
    }

    #[test]
    fn shares_always_fill_the_line() {
        for lengths in [vec![1.0], vec![1.0, 1.0], vec![5.0, 0.1], vec![1.0; 10], vec![1e-6, 1.0, 1e6, 1e-9]] {
            let got = shares(&lengths);
            assert!((got.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{lengths:?}: {got:?}");
        }
    }
}
