//! Numbers as Kubernetes prints quantities of its own making. Pure.

use super::thresholds::Signal;

/// How a quantity is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `Ki`, `Mi`, …
    Binary,
    /// `k`, `M`, …
    Decimal,
}

impl Form {
    /// Bytes or pieces.
    pub fn of(signal: Signal) -> Self {
        match signal {
            Signal::MemoryAvailable | Signal::NodeFsAvailable | Signal::ImageFsAvailable => Self::Binary,
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree | Signal::PidAvailable => Self::Decimal,
        }
    }
}

/// The number with the largest suffix that loses nothing.
pub fn shown(number: i64, form: Form) -> String {
    const BINARY: [(i64, &str); 6] =
        [(1 << 60, "Ei"), (1 << 50, "Pi"), (1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    const DECIMAL: [(i64, &str); 4] = [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")];
    let suffixes: &[(i64, &str)] = match form {
        Form::Binary => &BINARY,
        Form::Decimal => &DECIMAL,
    };
    let fitting = suffixes.iter().find(|(unit, _)| number != 0 && number % unit == 0);
    fitting.map_or_else(|| number.to_string(), |(unit, suffix)| format!("{}{suffix}", number / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        for (number, form, text) in [
            (0, Form::Binary, "0"),
            (1 << 30, Form::Binary, "1Gi"),
            (1536 << 20, Form::Binary, "1536Mi"),
            (1025, Form::Binary, "1025"),
            (3000, Form::Decimal, "3k"),
            (1024, Form::Decimal, "1024"),
        ] {
            assert_eq!(shown(number, form), text);
        }
    }
}
