//! Lines that change while one waits: spinners on a terminal, one plain line per change elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::escape::one_line;
use crate::output::note;

/// The lines shown on standard error.
pub struct Progress {
    bars: Option<MultiProgress>,
    /// In the order in which they came.
    lines: Vec<Line>,
    quiet: bool,
}

struct Line {
    key: String,
    text: String,
    mark: &'static str,
    /// Drawn before the text on a terminal.
    picture: String,
    bar: Option<ProgressBar>,
}

/// Before a line that reached what it was to reach.
const DONE: &str = "✔";
/// Before a line that was still under way when the waiting ended.
const OPEN: &str = "·";

impl Progress {
    /// Live lines if a person watches standard error.
    pub fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, lines: Vec::new(), quiet: false }
    }

    /// Live lines on a terminal, and none elsewhere.
    pub fn only_on_terminal() -> Self {
        let mut progress = Self::new();
        progress.quiet = progress.bars.is_none();
        progress
    }

    /// Shows or changes the line of this key.
    pub fn set(&mut self, key: &str, text: &str) {
        self.update(key, text, OPEN);
    }

    /// Shows the line of this key as done; it may still change.
    pub fn finish(&mut self, key: &str, text: &str) {
        self.update(key, text, DONE);
    }

    /// Whether a person watches lines that change.
    pub fn is_live(&self) -> bool {
        self.bars.is_some()
    }

    /// Where more may be drawn below the lines, if a person watches.
    pub fn bars(&self) -> Option<MultiProgress> {
        self.bars.clone()
    }

    /// Draws something before the text of a line that is there.
    pub fn picture(&mut self, key: &str, picture: &str) {
        let Some(line) = self.lines.iter_mut().find(|line| line.key == key) else { return };
        if line.picture != picture {
            picture.clone_into(&mut line.picture);
            if let Some(bar) = &line.bar {
                bar.set_message(line.shown());
            }
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

    /// Stops drawing and leaves the lines behind as plain text.
    pub fn close(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.erase(&lines);
        if self.bars.is_some() && !self.quiet {
            for line in &lines {
                note(&format!("{} {}: {}", line.mark, line.key, one_line(&line.text)));
            }
        }
    }

    /// Stops drawing and removes the lines: what they led to is said elsewhere.
    pub fn clear(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.erase(&lines);
    }

    fn update(&mut self, key: &str, text: &str, mark: &'static str) {
        if self.quiet {
            return;
        }
        let at = self.lines.iter().position(|line| line.key == key);
        let line = match at.and_then(|at| self.lines.get_mut(at)) {
            Some(line) if line.text == text && line.mark == mark => return,
            Some(line) => line,
            None => {
                let bar = self.bars.as_ref().map(|bars| bars.add(spinner()));
                self.lines.push(Line {
                    key: key.to_owned(),
                    text: String::new(),
                    mark: OPEN,
                    picture: String::new(),
                    bar,
                });
                let Some(line) = self.lines.last_mut() else { return };
                line
            }
        };
        let changed = line.text != text;
        text.clone_into(&mut line.text);
        line.mark = mark;
        match &line.bar {
            Some(bar) => {
                if mark == DONE {
                    bar.set_style(plain_style());
                    bar.disable_steady_tick();
                }
                bar.set_message(line.shown());
            }
            None if changed => note(&line.shown()),
            None => {}
        }
    }

    fn erase(&self, lines: &[Line]) {
        lines.iter().filter_map(|line| line.bar.as_ref()).for_each(ProgressBar::finish_and_clear);
        if let Some(bars) = &self.bars {
            // Drawing fails only if standard error is gone.
            drop(bars.clear());
        }
    }
}

impl Line {
    fn shown(&self) -> String {
        let mark = if self.mark == DONE && self.bar.is_some() { format!("{DONE} ") } else { String::new() };
        let picture = if self.picture.is_empty() { String::new() } else { format!("{} ", self.picture) };
        format!("{mark}{picture}{}: {}", self.key, one_line(&self.text))
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
