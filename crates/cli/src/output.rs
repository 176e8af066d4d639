//! Standard output and error: the only place that writes to them, and where foreign text is made harmless.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize as _;
use serde_json::Value;

use crate::errors::output_error;
use crate::escape;

/// Standard output, buffered until [`Output::flush`].
#[derive(Debug)]
pub struct Output {
    writer: BufWriter<Stdout>,
    terminal: bool,
}

/// How an object is printed whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// YAML 1.2 that YAML 1.1 readers understand alike
    Yaml,
    /// JSON, indented
    Json,
}

impl Output {
    /// This process' standard output.
    pub fn stdout() -> Self {
        Self { writer: BufWriter::new(io::stdout()), terminal: io::stdout().is_terminal() }
    }

    /// Whether a person watches.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes a text of one or more lines, escaped on a terminal, and ends it with a newline.
    pub fn line(&mut self, text: &str) -> Result<()> {
        self.text(text)?;
        self.writer.write_all(b"\n").map_err(output_error)
    }

    /// Writes a text as it is, but escaped on a terminal.
    pub fn text(&mut self, text: &str) -> Result<()> {
        let shown = if self.terminal { escape::multi_line(text) } else { text.into() };
        self.bytes(shown.as_bytes())
    }

    /// Writes bytes as they are: only for what is escaped already or must not be, as the output of exec.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(output_error)
    }

    /// Writes a whole object.
    pub fn document(&mut self, value: &Value, form: Document) -> Result<()> {
        let text = match form {
            Document::Yaml => serde_saphyr::to_string(value).context("cannot write the object as YAML")?,
            Document::Json => pretty_json(value)?,
        };
        self.line(text.trim_end())
    }

    /// Hands everything to the reader.
    pub fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(output_error)
    }
}

/// Says something beside the output, on standard error. Nothing can be done if nobody listens.
pub fn note(text: &str) {
    let stderr = io::stderr();
    let shown = if stderr.is_terminal() { escape::multi_line(text) } else { text.into() };
    drop(writeln!(stderr.lock(), "{}", shown.trim_end()));
}

fn pretty_json(value: &Value) -> Result<String> {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    value.serialize(&mut serializer).context("cannot write the object as JSON")?;
    String::from_utf8(bytes).context("cannot write the object as JSON")
}
