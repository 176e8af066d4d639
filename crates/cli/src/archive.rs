//! Writes a directory as a tar archive that loses nothing: owners, modes, devices, hard links, extended attributes.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};
use spec::ordered::sort_by;

/// Writes everything below `root`, names relative to it, in a stable order.
pub fn write_directory(root: &Path, writer: &mut impl Write) -> io::Result<()> {
    let mut archive = Archive { builder: tar::Builder::new(writer), root, first_names: HashMap::new() };
    archive.builder.follow_symlinks(false);
    archive.builder.sparse(false);
    archive.append_children(root)?;
    archive.builder.finish()
}

struct Archive<'a, W: Write> {
    builder: tar::Builder<W>,
    root: &'a Path,
    /// The first name of each file with several, by device and inode.
    first_names: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Archive<'_, W> {
    fn append_children(&mut self, directory: &Path) -> io::Result<()> {
        let mut paths = fs::read_dir(directory)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
            .map_err(|error| at(directory, &error))?;
        sort_by(&mut paths, Ord::cmp);
        paths.iter().try_for_each(|path| self.append(path))
    }

    fn append(&mut self, path: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path).map_err(|error| at(path, &error))?;
        let kind = metadata.file_type();
        // Sockets belong to programs that run; an image has none, and tar cannot hold them.
        if kind.is_socket() {
            return Ok(());
        }
        let name = path.strip_prefix(self.root).unwrap_or(path).to_owned();
        if !kind.is_dir() && metadata.nlink() > 1 {
            let id = (metadata.dev(), metadata.ino());
            if let Some(first) = self.first_names.get(&id) {
                let mut header = tar::Header::new_gnu();
                header.set_metadata(&metadata);
                header.set_entry_type(tar::EntryType::Link);
                header.set_size(0);
                return self.builder.append_link(&mut header, &name, first.clone());
            }
            self.first_names.insert(id, name.clone());
        }
        let attributes = extended_attributes(path).map_err(|error| at(path, &error))?;
        let attributes = attributes.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(attributes)?;
        self.builder.append_path_with_name(path, &name).map_err(|error| at(path, &error))?;
        if kind.is_dir() { self.append_children(path) } else { Ok(()) }
    }
}

/// As PAX records, the way GNU tar and container engines write them.
fn extended_attributes(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0u8; 64 * 1024];
    let length = match llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut attributes = Vec::new();
    for name in names.get(..length).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // Labels of the host's security module mean nothing elsewhere.
        if name == b"security.selinux" {
            continue;
        }
        let mut value = vec![0u8; 64 * 1024];
        let length = lgetxattr(path, CString::new(name)?.as_c_str(), &mut value)?;
        value.truncate(length);
        attributes.push((format!("SCHILY.xattr.{}", String::from_utf8_lossy(name)), value));
    }
    Ok(attributes)
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_keeps_links_and_attributes() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("bin")).unwrap();
        fs::write(root.join("bin/tool"), "program").unwrap();
        fs::hard_link(root.join("bin/tool"), root.join("bin/zweit")).unwrap();
        symlink("/absolute/elsewhere", root.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let set = rustix::fs::setxattr(root.join("bin"), "user.mark", b"yes", rustix::fs::XattrFlags::empty());
        let mut bytes = Vec::new();
        write_directory(root, &mut bytes).unwrap();
        let mut shown = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let marked = entry.pax_extensions().unwrap().is_some_and(|records| {
                records
                    .flatten()
                    .any(|record| record.key() == Ok("SCHILY.xattr.user.mark") && record.value() == Ok("yes"))
            });
            let link = entry.link_name().unwrap().map(|link| format!(" -> {}", link.display())).unwrap_or_default();
            shown.push(format!(
                "{:?} {}{link}{}",
                entry.header().entry_type(),
                entry.path().unwrap().display(),
                if marked { " marked" } else { "" }
            ));
        }
        let marked = if set.is_ok() { " marked" } else { "" };
        let directory = format!("Directory bin{marked}");
        assert_eq!(
            shown,
            [&directory, "Regular bin/tool", "Link bin/zweit -> bin/tool", "Symlink link -> /absolute/elsewhere"]
        );
    }
}
