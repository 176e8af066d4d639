//! What the works are done with, and on which machine.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::figures::Figures;

/// Lines of 100 bytes.
const LINES: usize = 2_000_000;
/// Bytes of the large image's files.
const IMAGE: usize = 500_000_000;

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

/// 200 MB in lines.
pub fn write_lines(path: &Path) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let line = [&[b'x'; 99][..], b"\n"].concat();
    for _ in 0..LINES {
        file.write_all(&line).unwrap();
    }
    file.flush().unwrap();
}

/// An archive `large:bench` of one gzipped layer with files of half random, half repeated bytes.
pub fn large_image(directory: &Path) -> PathBuf {
    let image = directory.join("large");
    fs::create_dir_all(image.join("root/files")).unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut content = vec![0_u8; 5_000_000];
    for number in 0..IMAGE / content.len() {
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
    let script = r#"set -e; cd "$0"
tar cf layer.tar -C root .; rm -r root
diff=$(sha256sum layer.tar | cut -d' ' -f1); gzip -1 layer.tar; mv layer.tar.gz layer.tar
echo "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Cmd\":[\"x\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$diff\"]}}" >config.json
echo '[{"Config":"config.json","RepoTags":["large:bench"],"Layers":["layer.tar"]}]' >manifest.json
tar cf ../large.tar manifest.json config.json layer.tar; rm -r ../large"#;
    let made = Command::new("sh").args(["-c", script]).arg(&image).status().unwrap();
    assert!(made.success(), "the large image cannot be made");
    directory.join("large.tar")
}
