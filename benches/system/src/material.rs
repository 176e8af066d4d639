//! What the works are done with, and on which machine.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::figures::Figures;

const MEGABYTE: usize = 1_000_000;
/// A file of the large image.
const FILE: usize = 5 * MEGABYTE;

/// What a reader must know to compare.
pub fn machine(directory: &Path) -> Vec<(&'static str, String)> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let hypervisor = if cpu.contains(" hypervisor") { ", a virtual machine" } else { "" };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cgroups = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" };
    vec![
        ("processor", format!("{}, {cores} cores{hypervisor}", model.trim_matches([' ', '\t', ':']))),
        ("kernel", format!("Linux {}, cgroup {cgroups}", kernel.trim())),
        ("disk", format!("fsync of a block appended: {:.2} ms", fsync(directory).median())),
        ("load before", load.split(' ').next().unwrap_or_default().to_owned()),
    ]
}

/// What a durable write costs at least.
fn fsync(directory: &Path) -> Figures {
    let mut file = File::create(directory.join("fsync")).unwrap();
    let mut times = Figures::default();
    for _ in 0..50 {
        file.write_all(&[7; 4096]).unwrap();
        let begin = Instant::now();
        file.sync_data().unwrap();
        times.add_time(begin.elapsed());
    }
    times
}

/// Of the program that is measured.
pub fn size_of_binary() -> String {
    let size = fs::metadata(e2e::node::binary()).unwrap().len();
    format!("{}.{} MB", size / 1_000_000, size / 100_000 % 10)
}

/// A file of lines of 100 bytes, in a directory that holds nothing else but an archive of it.
pub struct Lines {
    directory: PathBuf,
    pub megabytes: usize,
}

impl Lines {
    /// Writes both below a directory.
    pub fn write(directory: PathBuf, megabytes: usize) -> Self {
        fs::create_dir_all(&directory).unwrap();
        let lines = Self { directory, megabytes };
        let mut file = BufWriter::new(File::create(lines.file()).unwrap());
        let line = [&[b'x'; 99][..], b"\n"].concat();
        for _ in 0..lines.bytes() / line.len() {
            file.write_all(&line).unwrap();
        }
        file.flush().unwrap();
        let mut tar = Command::new("tar");
        let packed = tar.arg("cf").arg(lines.archive()).arg("-C").arg(&lines.directory).arg("lines").status().unwrap();
        assert!(packed.success(), "the lines cannot be packed");
        lines
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn file(&self) -> PathBuf {
        self.directory.join("lines")
    }

    pub fn archive(&self) -> PathBuf {
        self.directory.join("lines.tar")
    }

    pub fn bytes(&self) -> usize {
        self.megabytes * MEGABYTE
    }
}

/// An image `large:bench`.
pub struct Image {
    pub megabytes: usize,
    /// As `docker save` writes it since version 25: an OCI layout that has a `manifest.json`, too.
    pub archive: PathBuf,
    /// Its only layer, gzipped.
    pub layer: PathBuf,
}

/// Makes one with files of half random, half repeated bytes.
pub fn large_image(directory: &Path, megabytes: usize) -> Image {
    let image = directory.join("large");
    fs::create_dir_all(image.join("root/files")).unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut content = vec![0_u8; FILE];
    for number in 0..megabytes * MEGABYTE / FILE {
        for half in content.chunks_mut(64) {
            let (random, _repeated) = half.split_at_mut(32);
            for bytes in random.chunks_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.copy_from_slice(&state.to_le_bytes());
            }
        }
        fs::write(image.join(format!("root/files/{number}")), &content).unwrap();
    }
    let script = r#"set -e; cd "$0"; mkdir -p blobs/sha256
digest() { sha256sum "$1" | cut -d' ' -f1; }
# Makes a file a blob, and says what a descriptor says of it.
blob() {
    digest=$(digest "$2")
    echo "{\"mediaType\":\"$1\",\"digest\":\"sha256:$digest\",\"size\":$(stat -c %s "$2")}"
    mv "$2" blobs/sha256/$digest
}
oci=application/vnd.oci.image
tar cf layer -C root .; rm -r root
diff=$(digest layer); gzip -1 layer; ln layer.gz ../layer.gz
echo "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Cmd\":[\"x\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$diff\"]}}" >config
echo "[{\"Config\":\"blobs/sha256/$(digest config)\",\"RepoTags\":[\"large:bench\"],\"Layers\":[\"blobs/sha256/$(digest layer.gz)\"]}]" >manifest.json
echo "{\"schemaVersion\":2,\"mediaType\":\"$oci.manifest.v1+json\",\"config\":$(blob $oci.config.v1+json config),\"layers\":[$(blob $oci.layer.v1.tar+gzip layer.gz)]}" >manifest
names='{"io.containerd.image.name":"docker.io/library/large:bench","org.opencontainers.image.ref.name":"bench"}'
described=$(blob $oci.manifest.v1+json manifest)
echo "{\"schemaVersion\":2,\"manifests\":[${described%\}},\"annotations\":$names}]}" >index.json
echo '{"imageLayoutVersion":"1.0.0"}' >oci-layout
tar cf ../large.tar manifest.json index.json oci-layout blobs; rm -r ../large"#;
    let made = Command::new("sh").args(["-c", script]).arg(&image).status().unwrap();
    assert!(made.success(), "the large image cannot be made");
    Image { megabytes, archive: directory.join("large.tar"), layer: directory.join("layer.gz") }
}
