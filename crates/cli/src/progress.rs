//! Lines that change while one waits: spinners on a terminal, one plain line per change elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::escape::one_line;
use crate::output::note;

/// The lines shown on standard error.
pub struct Progress {
    bars: Option<MultiProgress>,
    lines: HashMap<String, Line>,
    quiet: bool,
}

struct Line {
    text: String,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Live lines if a person watches standard error.
    pub fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, lines: HashMap::new(), quiet: false }
    }

    /// Live lines on a terminal, and none elsewhere.
    pub fn only_on_terminal() -> Self {
        let mut progress = Self::new();
        progress.quiet = progress.bars.is_none();
        progress
    }

    /// Shows or changes the line of this key.
    pub fn set(&mut self, key: &str, text: &str) {
        if self.quiet || self.lines.get(key).is_some_and(|line| line.text == text) {
            return;
        }
        let shown = format!("{key}: {}", one_line(text));
        let bar = match (&self.bars, self.lines.remove(key).and_then(|line| line.bar)) {
            (Some(_), Some(bar)) => Some(bar),
            (Some(bars), None) => Some(bars.add(spinner())),
            (None, _) => None,
        };
        match &bar {
            Some(bar) => bar.set_message(shown),
            None => note(&shown),
        }
        self.lines.insert(key.to_owned(), Line { text: text.to_owned(), bar });
    }

    /// Shows the last state of this key, which no longer changes.
    pub fn finish(&mut self, key: &str, mark: &str, text: &str) {
        self.set(key, text);
        if let Some(bar) = self.lines.get(key).and_then(|line| line.bar.as_ref()) {
            bar.set_style(plain_style());
            bar.finish_with_message(format!("{mark} {key}: {}", one_line(text)));
        }
    }

    /// Says something once, above the lines that change.
    pub fn say(&self, text: &str) {
        match &self.bars {
            // Drawing fails only if standard error is gone.
            Some(bars) => drop(bars.println(one_line(text))),
            None => note(text),
        }
    }

    /// Leaves the lines as they stand and stops drawing.
    pub fn close(&mut self) {
        for line in self.lines.values() {
            if let Some(bar) = line.bar.as_ref().filter(|bar| !bar.is_finished()) {
                bar.set_style(plain_style());
                bar.abandon();
            }
        }
    }

    /// Removes the lines: what they led to is said elsewhere.
    pub fn clear(&mut self) {
        for (_key, line) in self.lines.drain() {
            if let Some(bar) = line.bar {
                bar.finish_and_clear();
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.close();
    }
}

fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn plain_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}
