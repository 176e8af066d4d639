//! Numbers of tar headers: octal text, base 256, and PAX decimals.

/// A numeric field: octal digits between spaces and NULs, or base 256 with the first bit set (GNU tar, large values).
pub(super) fn field(bytes: &[u8]) -> Option<i64> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => base_256(bytes),
        _ => octal(bytes),
    }
}

fn octal(bytes: &[u8]) -> Option<i64> {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default().trim_ascii();
    text.iter().try_fold(0_i64, |number, &byte| match byte {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

/// Two's complement, big-endian; the first bit only marks the encoding, the second one is the sign.
fn base_256(bytes: &[u8]) -> Option<i64> {
    let (first, rest) = bytes.split_first()?;
    let first = first & 0x7f;
    let start = if first & 0x40 == 0 { i64::from(first) } else { i64::from(first) - 0x80 };
    rest.iter().try_fold(start, |number, &byte| number.checked_mul(256)?.checked_add(i64::from(byte)))
}

/// A decimal number of a PAX record, without sign.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0_u64, |number, &byte| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// A PAX time: seconds with sign and fraction, as seconds rounded down and nanoseconds (pax(1), "mtime").
pub(super) fn time(bytes: &[u8]) -> Option<(i64, u32)> {
    let (whole, fraction) = match bytes.iter().position(|&byte| byte == b'.') {
        Some(dot) => (bytes.get(..dot)?, bytes.get(dot + 1..)?),
        None => (bytes, &[][..]),
    };
    let (negative, digits) = match whole.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, whole),
    };
    let seconds = i64::try_from(decimal(digits)?).ok()?;
    let mut nanoseconds = 0_u32;
    for place in 0..9 {
        let digit = match fraction.get(place) {
            Some(digit @ b'0'..=b'9') => u32::from(digit - b'0'),
            Some(_) => return None,
            None => 0,
        };
        nanoseconds = nanoseconds * 10 + digit;
    }
    match (negative, nanoseconds) {
        (false, _) => Some((seconds, nanoseconds)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_octal_or_base_256() {
        let cases: [(&[u8], Option<i64>); 10] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777777", Some(0o77_777_777_777)),
            (b"\0\0\0\0", Some(0)),
            (b"", Some(0)),
            (b"0000648\0", None),
            (b"-1\0", None),
            (&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0], Some(0x2_0000_0000)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], Some(-2)),
            (&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0], None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(field(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn pax_times_have_sign_and_fraction() {
        type Case<'a> = (&'a [u8], Option<(i64, u32)>);
        let cases: [Case<'_>; 8] = [
            (b"1700000000", Some((1_700_000_000, 0))),
            (b"1700000000.5", Some((1_700_000_000, 500_000_000))),
            (b"1.123456789999", Some((1, 123_456_789))),
            (b"-1", Some((-1, 0))),
            (b"-0.25", Some((-1, 750_000_000))),
            (b"", None),
            (b"1.x", None),
            (b"99999999999999999999", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(time(bytes), expected, "{bytes:?}");
        }
    }
}
