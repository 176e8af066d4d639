//! Protobuf's wire format: numbers of fields and what they hold.

use crate::protobuf::DecodeError;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub enum Datum<'a> {
    /// A number or a truth.
    Varint(u64),
    /// A text, bytes, or a message.
    Bytes(&'a [u8]),
    /// A floating-point number.
    Fixed64(u64),
    /// Half of one; Kubernetes has none.
    Fixed32,
}

/// The fields of a message in their order.
pub fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u32, Datum<'_>), DecodeError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = field(&mut rest);
        if next.is_none() {
            // What follows cannot be understood any more.
            rest = &[];
        }
        Some(next.ok_or(DecodeError::Malformed))
    })
}

/// The numbers of a packed field.
pub fn packed(mut bytes: &[u8]) -> Result<Vec<u64>, DecodeError> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(varint(&mut bytes).ok_or(DecodeError::Malformed)?);
    }
    Ok(numbers)
}

/// A text.
pub fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_not_utf8| DecodeError::Malformed)
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Datum<'a>)> {
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0)?;
    let datum = match key & 7 {
        0 => Datum::Varint(varint(rest)?),
        1 => Datum::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Datum::Bytes(take(rest, length)?)
        }
        5 => {
            take(rest, 4)?;
            Datum::Fixed32
        }
        _ => return None,
    };
    Some((number, datum))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
