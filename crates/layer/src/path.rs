//! Names of a layer's entries, taken apart before the kernel sees them.

use crate::limits::{NAME_BYTES, PATH_BYTES, PATH_DEPTH};

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPath {
    #[error("its path leaves the image by \"..\"")]
    ParentDirectory,
    #[error("its path has more than {PATH_BYTES} bytes")]
    TooLong,
    #[error("its path has more than {PATH_DEPTH} names")]
    TooDeep,
    #[error("a name in its path has more than {NAME_BYTES} bytes")]
    NameTooLong,
    #[error("its path contains a NUL")]
    Nul,
}

/// A path relative to the layer's root: no `.`, no `..`, no empty name. The root itself has no names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerPath<'a> {
    names: Vec<&'a [u8]>,
}

impl<'a> LayerPath<'a> {
    /// Absolute paths are taken as relative to the root; `..` is refused even where it would stay inside.
    pub(crate) fn parse(path: &'a [u8]) -> Result<Self, BadPath> {
        if path.len() > PATH_BYTES {
            return Err(BadPath::TooLong);
        }
        if path.contains(&0) {
            return Err(BadPath::Nul);
        }
        let names: Vec<&[u8]> =
            path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
        if names.contains(&&b".."[..]) {
            return Err(BadPath::ParentDirectory);
        }
        if names.len() > PATH_DEPTH {
            return Err(BadPath::TooDeep);
        }
        if names.iter().any(|name| name.len() > NAME_BYTES) {
            return Err(BadPath::NameTooLong);
        }
        Ok(Self { names })
    }

    /// The names above the last one, and the last one; `None` for the root.
    pub(crate) fn split_last(&self) -> Option<(&[&'a [u8]], &'a [u8])> {
        self.names.split_last().map(|(last, parents)| (parents, *last))
    }

    /// The names, joined by slashes.
    pub(crate) fn joined(&self) -> Vec<u8> {
        self.names.join(&b'/')
    }
}

/// What a name means in a layer (OCI image-spec, layer.md, "Whiteouts").
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NameMeaning<'a> {
    /// A file, directory or link of that name.
    Entry,
    /// `.wh.NAME`: NAME of lower layers is hidden.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: everything that lower layers have in this directory is hidden.
    Opaque,
    /// `.wh..wh.…`: bookkeeping of AUFS that old images still carry.
    Aufs,
}

impl<'a> NameMeaning<'a> {
    pub(crate) fn of(name: &'a [u8]) -> Result<Self, BadPath> {
        let Some(hidden) = name.strip_prefix(b".wh.") else { return Ok(Self::Entry) };
        match hidden {
            b".wh..opq" => Ok(Self::Opaque),
            b"" | b"." | b".." => Err(BadPath::ParentDirectory),
            _ if hidden.starts_with(b".wh.") => Ok(Self::Aufs),
            _ => Ok(Self::Whiteout(hidden)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_and_stay_inside() {
        type Case<'a> = (&'a [u8], Result<&'a [u8], BadPath>);
        let long_name = [b'n'; NAME_BYTES + 1];
        let deep = b"d/".repeat(PATH_DEPTH + 1);
        let long = b"0123456789/".repeat(373);
        let cases: [Case<'_>; 13] = [
            (b"a/b", Ok(b"a/b")),
            (b"./a//b/./c/", Ok(b"a/b/c")),
            (b"/etc/passwd", Ok(b"etc/passwd")),
            (b"", Ok(b"")),
            (b"./", Ok(b"")),
            (b"a..b/..c/d..", Ok(b"a..b/..c/d..")),
            (b"..", Err(BadPath::ParentDirectory)),
            (b"a/../b", Err(BadPath::ParentDirectory)),
            (b"/../etc", Err(BadPath::ParentDirectory)),
            (b"a\0b", Err(BadPath::Nul)),
            (&long_name, Err(BadPath::NameTooLong)),
            (&deep, Err(BadPath::TooDeep)),
            (&long, Err(BadPath::TooLong)),
        ];
        for (path, expected) in cases {
            let found = LayerPath::parse(path).map(|path| path.joined());
            assert_eq!(found, expected.map(<[u8]>::to_vec), "{:?}", String::from_utf8_lossy(path));
        }
    }

    #[test]
    fn whiteouts_are_told_by_their_name() {
        let cases: [(&[u8], Result<NameMeaning<'_>, BadPath>); 8] = [
            (b"file", Ok(NameMeaning::Entry)),
            (b".whale", Ok(NameMeaning::Entry)),
            (b".wh.file", Ok(NameMeaning::Whiteout(b"file"))),
            (b".wh..wh..opq", Ok(NameMeaning::Opaque)),
            (b".wh..wh.plnk", Ok(NameMeaning::Aufs)),
            (b".wh.", Err(BadPath::ParentDirectory)),
            (b".wh..", Err(BadPath::ParentDirectory)),
            (b".wh...", Err(BadPath::ParentDirectory)),
        ];
        for (name, expected) in cases {
            assert_eq!(NameMeaning::of(name), expected, "{:?}", String::from_utf8_lossy(name));
        }
    }
}
