//! Bars that show how far the layers of an image have come.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::fields::Fields as _;

/// One bar for each layer, on standard error if a person watches it.
pub struct PullProgress {
    bars: MultiProgress,
    layers: BTreeMap<usize, ProgressBar>,
}

impl PullProgress {
    /// Nothing is shown until the layers are known.
    pub fn new() -> Self {
        // Hidden where it is no terminal.
        Self { bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), layers: BTreeMap::new() }
    }

    /// The same beside other lines that change.
    pub fn among(bars: MultiProgress) -> Self {
        Self { bars, layers: BTreeMap::new() }
    }

    /// Shows what the daemon says.
    pub fn show(&mut self, layers: &[Value]) {
        for (place, layer) in layers.iter().enumerate() {
            let number = |pointer| layer.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
            let (size, received) = (number("/size"), number("/received"));
            let bar = self.layers.entry(place).or_insert_with(|| self.bars.add(bar(layer.text("/digest"), size)));
            match layer.text("/stage") {
                stage @ ("present" | "pulled") if !bar.is_finished() => {
                    bar.set_style(done());
                    bar.finish_with_message(if stage == "present" { "already here" } else { "pulled" });
                }
                "pulling" => bar.set_position(received),
                _ => {}
            }
        }
    }

    /// Removes the bars: what they led to is said elsewhere.
    pub fn clear(&self) {
        for bar in self.layers.values() {
            bar.finish_and_clear();
            self.bars.remove(bar);
        }
    }
}

fn bar(digest: &str, size: u64) -> ProgressBar {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    let style = ProgressStyle::with_template("{prefix} {bar:40} {bytes}/{total_bytes} {bytes_per_sec}");
    let bar = ProgressBar::new(size).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_prefix(hex.chars().filter(char::is_ascii_hexdigit).take(12).collect::<String>())
}

fn done() -> ProgressStyle {
    let style = ProgressStyle::with_template("{prefix} {msg} ({total_bytes})");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}
