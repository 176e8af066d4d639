//! How long a layer takes, and where the time goes: `cargo bench -p monopod-layer [-- LAYER]`; without one it makes a layer of
//! 200 MB, half of it random. Read the figures against gzip's own: `gzip -dc LAYER >/dev/null`. The files lie in `TMPDIR`.

#![expect(clippy::print_stdout, reason = "a benchmark reports to a person")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use flate2::write::GzEncoder;
use layer::limits::LayerLimits;
use layer::{LayerBlob, Trash, decompress, digest_of, directory, unpack_blob};
use spec::Digest;

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;
const FILES: usize = 40;
const FILE: usize = 5_000_000;

fn main() -> Outcome<()> {
    let below = tempfile::tempdir()?;
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let path = given.map_or_else(|| make_layer(below.path()), |path| Ok(path.into()))?;
    let (digest, diff_id) = digests(&path)?;
    let trash = Trash::open(&below.path().join("trash"))?;
    for round in 0..ROUNDS {
        time("decompress", || Ok(io::copy(&mut decompress(File::open(&path)?)?.1, &mut io::sink())?))?;
        for (what, digest) in [("unpack", None), ("unpack, with its digest", Some(&digest))] {
            let root = below.path().join(format!("{round} {what}"));
            let target = directory::make_private(&root)?;
            let (reader, diff_id) = (Box::new(File::open(&path)?), Some(diff_id.clone()));
            let blob = LayerBlob { reader, digest: digest.cloned(), size: None, diff_id };
            time(what, || Ok(unpack_blob(blob, target, &LayerLimits::default(), &trash)?))?;
            time("  until it is durable", || Ok(rustix::fs::syncfs(File::open(&root)?)?))?;
            fs::remove_dir_all(root)?;
        }
    }
    Ok(())
}

fn time<T>(what: &str, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let begin = Instant::now();
    let done = work()?;
    println!("{what:<24}{:>8.0} ms", begin.elapsed().as_secs_f64() * 1000.0);
    Ok(done)
}

/// Of the layer as it is, and of what is in it.
fn digests(path: &Path) -> Outcome<(Digest, Digest)> {
    let mut content = Vec::new();
    decompress(File::open(path)?)?.1.read_to_end(&mut content)?;
    Ok((digest_of(&fs::read(path)?), digest_of(&content)))
}

fn make_layer(directory: &Path) -> Outcome<PathBuf> {
    let path = directory.join("layer.gz");
    let mut archive = tar::Builder::new(GzEncoder::new(File::create(&path)?, flate2::Compression::fast()));
    let (mut state, mut content) = (0x2545_f491_4f6c_dd1d_u64, vec![0_u8; FILE]);
    for number in 0..FILES {
        for random in content.chunks_exact_mut(64).filter_map(|chunk| chunk.first_chunk_mut::<32>()) {
            for word in random.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(FILE as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("files/{number}"), content.as_slice())?;
    }
    archive.into_inner()?.finish()?;
    Ok(path)
}
