//! Quantities such as `100m`, `1.5Gi` and `2e3`, as Kubernetes reads and writes them.
//!
//! Source: the API reference of `io.k8s.apimachinery.pkg.api.resource.Quantity`. A quantity is at most 2^63-1 in
//! magnitude and has at most nine decimal places; what is larger is capped, what is more precise is rounded up.

use std::fmt;
use std::str::FromStr;

/// Units are kept as whole billionths, the finest that a suffix can name.
const NANOS: i128 = 1_000_000_000;
const MAX_NANOS: i128 = (i64::MAX as i128) * NANOS;

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/// A number with the notation it was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    nanos: i128,
    notation: Notation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notation {
    Binary,
    Decimal,
    Exponent,
}

/// Why a text is not a quantity, or a quantity not the number that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text does not have the form of a quantity. Kubernetes says it in these words.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Malformed {
        /// The text as it was given.
        text: String,
    },
    /// The number has no 64-bit representation in the unit that was asked for.
    #[error("quantity {quantity} is too large")]
    TooLarge {
        /// The quantity in canonical form.
        quantity: String,
    },
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self::count(0);

    /// A number of pieces.
    pub const fn count(pieces: i64) -> Self {
        Self { nanos: pieces as i128 * NANOS, notation: Notation::Decimal }
    }

    /// The sum, in the notation of the first number that is not zero.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        let notation = if self.is_zero() { more.notation } else { self.notation };
        Self { nanos: self.nanos.saturating_add(more.nanos).min(MAX_NANOS), notation }
    }

    /// What is left; nothing where `less` is more than there is.
    #[must_use]
    pub fn minus(self, less: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(less.nanos).max(0), ..self }
    }

    /// The same number without a fraction, rounded up.
    #[must_use]
    pub fn rounded_up(self) -> Self {
        Self { nanos: round_away_from_zero(self.nanos, NANOS) * NANOS, ..self }
    }

    /// How many times as much as `other` it is.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn ratio_to(self, other: Self) -> f64 {
        self.nanos as f64 / other.nanos as f64
    }

    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse(text).ok_or_else(|| QuantityError::Malformed { text: text.to_owned() })
    }

    /// Thousandths of the unit, rounded up: millicores of a CPU quantity.
    pub fn millis(self) -> Result<i64, QuantityError> {
        self.scaled(NANOS / 1000)
    }

    /// Whole units, rounded up: bytes of a memory quantity, cores of a CPU quantity.
    pub fn value(self) -> Result<i64, QuantityError> {
        self.scaled(NANOS)
    }

    /// How many times `divisor` fits, rounded up; a zero divisor counts as one (as `resourceFieldRef` has it).
    pub fn divided_by(self, divisor: Self) -> Result<i64, QuantityError> {
        self.scaled(if divisor.nanos == 0 { NANOS } else { divisor.nanos })
    }

    /// Compares the numbers, whatever their notation.
    pub fn compare(self, other: Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }

    /// Whether the number is below zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether the number is zero.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether the number has no fraction.
    pub fn is_integer(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// The same number with at most three decimal places, rounded up, as the API server keeps resources.
    #[must_use]
    pub fn rounded_up_to_milli(self) -> Self {
        const MILLI: i128 = NANOS / 1000;
        Self { nanos: round_away_from_zero(self.nanos, MILLI) * MILLI, ..self }
    }

    fn scaled(self, unit: i128) -> Result<i64, QuantityError> {
        i64::try_from(round_away_from_zero(self.nanos, unit))
            .ok()
            .ok_or_else(|| QuantityError::TooLarge { quantity: self.to_string() })
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

/// The canonical form: no fraction, the largest suffix that loses nothing, in the notation it was read in.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.notation {
            Notation::Binary if self.nanos.abs() >= 1024 * NANOS => {
                let (number, suffix) = reduce(round_away_from_zero(self.nanos, NANOS), 1024, &BINARY);
                write!(f, "{number}{suffix}")
            }
            Notation::Binary | Notation::Decimal => {
                let (number, suffix) = reduce(self.nanos, 1000, &DECIMAL);
                write!(f, "{number}{suffix}")
            }
            Notation::Exponent => {
                let mut number = self.nanos;
                let mut exponent = -9;
                while number != 0 && number % 1000 == 0 {
                    number /= 1000;
                    exponent += 3;
                }
                if number == 0 || exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") }
            }
        }
    }
}

fn reduce(mut number: i128, base: i128, suffixes: &[&'static str]) -> (i128, &'static str) {
    if number == 0 {
        return (0, "");
    }
    let mut suffixes = suffixes.iter().copied();
    let mut suffix = suffixes.next().unwrap_or("");
    for next in suffixes {
        if number % base != 0 {
            break;
        }
        number /= base;
        suffix = next;
    }
    (number, suffix)
}

fn round_away_from_zero(number: i128, unit: i128) -> i128 {
    let whole = number / unit;
    if number % unit == 0 { whole } else { whole + number.signum() * unit.signum() }
}

fn parse(text: &str) -> Option<Quantity> {
    let (negative, unsigned) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (multiplier, notation) = parse_suffix(suffix)?;
    let nanos = scale(whole, fraction, multiplier);
    Some(Quantity { nanos: if negative { -nanos } else { nanos }, notation })
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Multiplier {
    Integer(i128),
    /// A power of ten.
    Power(i32),
}

fn parse_suffix(suffix: &str) -> Option<(Multiplier, Notation)> {
    if let Some(step) = BINARY.iter().skip(1).position(|known| *known == suffix) {
        return Some((Multiplier::Integer(1_i128 << (10 * (step + 1))), Notation::Binary));
    }
    if let Some(step) = DECIMAL.iter().position(|known| *known == suffix) {
        let step = i32::try_from(step).ok()?;
        return Some((Multiplier::Power(step * 3 - 9), Notation::Decimal));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Multiplier::Power(exponent.parse().ok()?), Notation::Exponent))
}

/// `whole.fraction` times the multiplier, in billionths; capped, and rounded up to the next billionth.
fn scale(whole: &str, fraction: &str, multiplier: Multiplier) -> i128 {
    let mut mantissa: i128 = 0;
    let mut exponent: i32 = 0; // of ten, to be applied to the mantissa
    let mut inexact = false;
    for (index, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let grown = mantissa.checked_mul(10).and_then(|m| m.checked_add(i128::from(digit - b'0')));
        let in_fraction = index >= whole.len();
        match grown.filter(|m| *m < 1_i128 << 66) {
            Some(grown) if exponent <= 0 => {
                mantissa = grown;
                exponent -= i32::from(in_fraction);
            }
            // More digits than can matter: they only make the number not exact, or larger than the cap.
            _ => {
                inexact |= digit != b'0';
                exponent += i32::from(!in_fraction);
            }
        }
    }
    let power = match multiplier {
        Multiplier::Power(power) => power,
        Multiplier::Integer(factor) => {
            // At most 2^66 times 2^60.
            mantissa *= factor;
            0
        }
    };
    apply_power_of_ten(mantissa, exponent.saturating_add(power).saturating_add(9), inexact)
}

fn apply_power_of_ten(mut number: i128, power: i32, inexact: bool) -> i128 {
    if number == 0 {
        return i128::from(inexact);
    }
    let mut inexact = inexact;
    for _ in 0..power.unsigned_abs().min(100) {
        if power > 0 {
            number = number.saturating_mul(10);
        } else {
            inexact |= number % 10 != 0;
            number /= 10;
        }
    }
    number.saturating_add(i128::from(inexact)).min(MAX_NANOS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_a_number_and_a_canonical_form() {
        // text, thousandths, units, canonical form
        let table = [
            ("0", 0, 0, "0"),
            ("1", 1000, 1, "1"),
            ("+1", 1000, 1, "1"),
            ("-1", -1000, -1, "-1"),
            ("100m", 100, 1, "100m"),
            ("0.1", 100, 1, "100m"),
            (".5", 500, 1, "500m"),
            ("1.", 1000, 1, "1"),
            ("1500m", 1500, 2, "1500m"),
            ("1000m", 1000, 1, "1"),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736, "1536Mi"),
            ("0.5Gi", 536_870_912_000, 536_870_912, "512Mi"),
            ("1024Mi", 1_073_741_824_000, 1_073_741_824, "1Gi"),
            ("1Ki", 1_024_000, 1024, "1Ki"),
            ("0.5Ki", 512_000, 512, "512"),
            ("1k", 1_000_000, 1000, "1k"),
            ("1000k", 1_000_000_000, 1_000_000, "1M"),
            ("1e3", 1_000_000, 1000, "1e3"),
            ("12E2", 1_200_000, 1200, "1200"),
            ("1e-3", 1, 1, "1e-3"),
            ("1n", 1, 1, "1n"),
            ("0.1n", 1, 1, "1n"),
            ("0.1m", 1, 1, "100u"),
            ("123456789012", 123_456_789_012_000, 123_456_789_012, "123456789012"),
        ];
        for (text, millis, value, canonical) in table {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!(quantity.millis().unwrap(), millis, "{text}");
            assert_eq!(quantity.value().unwrap(), value, "{text}");
            assert_eq!(quantity.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_too_large_is_capped() {
        for text in [
            "8Ei",
            "9223372036854775807",
            "99999999999999999999999999999999999999999999",
            "1e300",
            "10E",
            "1e2147483647",
        ] {
            assert_eq!(Quantity::parse(text).unwrap().value().unwrap(), i64::MAX, "{text}");
        }
        assert_eq!(Quantity::parse("-9Ei").unwrap().value().unwrap(), -i64::MAX);
        assert!(Quantity::parse("8Ei").unwrap().millis().is_err());
        assert_eq!(Quantity::parse("1e-2147483648").unwrap().to_string(), "1e-9");
    }

    #[test]
    fn many_digits_lose_nothing_that_matters() {
        let table = [
            ("0000000000000000000000000000000000000000000001", "1"),
            ("1.00000000000000000000000000000000000000000000", "1"),
            ("0.00000000000000000000000000000000000000000001", "1n"),
            ("1.000000000000000000000000000000000000000000001", "1000000001n"),
        ];
        for (text, canonical) in table {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "", "-", ".", "m", "1.2.3", "1kk", "1 ", " 1", "1e", "1e+", "1ki", "1mi", "0x10", "1e1.5", "٣", "--1",
            "1KiB",
        ] {
            assert!(Quantity::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn milli_rounding_and_division_round_up() {
        assert_eq!(Quantity::parse("0.0001").unwrap().rounded_up_to_milli().to_string(), "1m");
        let of = |q: &str, d: &str| Quantity::parse(q).unwrap().divided_by(Quantity::parse(d).unwrap()).unwrap();
        assert_eq!(of("250m", "1"), 1);
        assert_eq!(of("1250m", "1m"), 1250);
        assert_eq!(of("64Mi", "1Mi"), 64);
        assert_eq!(of("65Mi", "1Gi"), 1);
        assert_eq!(of("7", "0"), 7);
    }
}
