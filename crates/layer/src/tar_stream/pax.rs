//! The records of a PAX extended header.

use super::number;
use super::sparse::{PaxSparse, Segment};

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// What the records say about the entry that follows.
#[derive(Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) modified: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<PaxSparse>,
}

impl Pax {
    /// Records are `LENGTH KEY=VALUE\n`, where the length counts the whole record, so that values may be binary.
    pub(super) fn parse(mut records: &[u8]) -> Result<Self, &'static str> {
        const BAD: &str = "its extended header has a bad record";
        let mut pax = Self::default();
        while !records.is_empty() {
            let space = records.iter().take(20).position(|&byte| byte == b' ').ok_or(BAD)?;
            let length = records.get(..space).and_then(number::decimal).ok_or(BAD)?;
            let length = usize::try_from(length).map_err(|_too_large| BAD)?;
            let record = records.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or(BAD)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(BAD)?;
            pax.apply(record.get(..equals).ok_or(BAD)?, record.get(equals + 1..).ok_or(BAD)?)?;
            records = records.get(length..).unwrap_or_default();
        }
        Ok(pax)
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let id = || number::decimal(value).and_then(|id| i64::try_from(id).ok());
        match key {
            b"path" => self.path = Some(name(value)?),
            b"linkpath" => self.link = Some(name(value)?),
            b"size" => self.size = Some(number::decimal(value).ok_or("its size is no number")?),
            b"uid" => self.uid = Some(id().ok_or("its user id is no number")?),
            b"gid" => self.gid = Some(id().ok_or("its group id is no number")?),
            b"mtime" => self.modified = Some(number::time(value).ok_or("its time is no number")?),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(SPARSE) {
                    self.sparse.get_or_insert_default().apply(key, value)?;
                }
            }
        }
        Ok(())
    }
}

impl PaxSparse {
    /// Versions 0.0 (a record for each number), 0.1 (one list) and 1.0 (the map is in the body).
    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "its sparse map is no list of numbers";
        let number = || number::decimal(value).ok_or(BAD);
        match key {
            b"major" => self.version.0 = number()?,
            b"minor" => self.version.1 = number()?,
            b"name" => self.name = Some(name(value)?),
            b"size" | b"realsize" => self.real_size = Some(number()?),
            b"offset" => self.segments.push(Segment { offset: number()?, length: 0 }),
            b"numbytes" => self.segments.last_mut().ok_or(BAD)?.length = number()?,
            b"map" => {
                let numbers: Option<Vec<u64>> = value.split(|&byte| byte == b',').map(number::decimal).collect();
                let (pairs, rest) = numbers.as_deref().ok_or(BAD)?.as_chunks::<2>();
                if !rest.is_empty() {
                    return Err(BAD);
                }
                self.segments = pairs.iter().map(|&[offset, length]| Segment { offset, length }).collect();
            }
            _ => {}
        }
        Ok(())
    }
}

fn name(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    if value.contains(&0) {
        return Err("its name contains a NUL");
    }
    Ok(value.to_vec())
}
