//! The CRI log format: `<RFC 3339 time> <stdout|stderr> <P|F> <text>`, and what a reader makes of it. Pure.

use spec::Timestamp;

/// A raw line may be this long before it is taken as broken: the writer splits at 16 KiB.
const LONGEST_LINE: usize = 1 << 20;

/// Which output of a container is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StreamFilter {
    /// Both.
    #[default]
    All,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// As written.
    pub time: &'a [u8],
    /// `stdout` or `stderr`.
    pub stream: &'a [u8],
    /// Whether the text goes on in the next line of the same stream.
    pub partial: bool,
    /// What the container wrote, without the newline.
    pub text: &'a [u8],
}

impl<'a> LogLine<'a> {
    /// Reads a line without its newline; `None` if it is not of this format.
    pub fn parse(raw: &'a [u8]) -> Option<Self> {
        let mut fields = raw.splitn(4, |&byte| byte == b' ');
        let (time, stream, tags) = (fields.next()?, fields.next()?, fields.next()?);
        let text = fields.next().unwrap_or_default();
        let partial = match tags.split(|&byte| byte == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        (matches!(stream, b"stdout" | b"stderr") && !time.is_empty()).then_some(Self { time, stream, partial, text })
    }

    fn time(&self) -> Option<Timestamp> {
        std::str::from_utf8(self.time).ok()?.parse().ok()
    }
}

impl StreamFilter {
    /// Whether lines of `stream` are wanted.
    pub fn takes(self, stream: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Stdout => stream == b"stdout",
            Self::Stderr => stream == b"stderr",
        }
    }
}

/// What a reader wants to see.
#[derive(Debug, Clone, Default)]
pub struct Rendering {
    /// Lines before this time are left out.
    pub since: Option<Timestamp>,
    /// Each line starts with its time.
    pub timestamps: bool,
    /// Which streams.
    pub stream: StreamFilter,
    /// No more output than this.
    pub limit_bytes: Option<u64>,
}

/// Turns raw log bytes, in portions cut anywhere, into what a reader sees.
#[derive(Debug)]
pub struct Renderer {
    rendering: Rendering,
    carry: Vec<u8>,
    mid_line: bool,
    written: u64,
}

impl Renderer {
    /// Starts at the beginning of a line.
    pub fn new(rendering: Rendering) -> Self {
        Self { rendering, carry: Vec::new(), mid_line: false, written: 0 }
    }

    /// Whether the byte limit is reached.
    pub fn is_full(&self) -> bool {
        self.rendering.limit_bytes.is_some_and(|limit| self.written >= limit)
    }

    /// Takes raw bytes and appends what they show to `output`.
    pub fn push(&mut self, raw: &[u8], output: &mut Vec<u8>) {
        let mut rest = raw;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.carry.is_empty() {
                self.line(line, output);
            } else {
                let mut whole = std::mem::take(&mut self.carry);
                whole.extend_from_slice(line);
                self.line(&whole, output);
            }
            if self.is_full() {
                return;
            }
        }
        if self.carry.len() + rest.len() <= LONGEST_LINE {
            self.carry.extend_from_slice(rest);
        }
    }

    fn line(&mut self, raw: &[u8], output: &mut Vec<u8>) {
        let Some(line) = LogLine::parse(raw) else { return };
        let early = self.rendering.since.is_some_and(|since| line.time().is_some_and(|time| time < since));
        if early || !self.rendering.stream.takes(line.stream) {
            return;
        }
        let before = output.len();
        if self.rendering.timestamps && !self.mid_line {
            output.extend_from_slice(line.time);
            output.push(b' ');
        }
        output.extend_from_slice(line.text);
        if !line.partial {
            output.push(b'\n');
        }
        self.mid_line = line.partial;
        if let Some(limit) = self.rendering.limit_bytes {
            let room = usize::try_from(limit.saturating_sub(self.written)).unwrap_or(usize::MAX);
            output.truncate(before.saturating_add(room));
        }
        self.written += u64::try_from(output.len().saturating_sub(before)).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-01T00:00:01.5Z stdout F one
2026-01-01T00:00:02Z stdout P tw
2026-01-01T00:00:02.1Z stdout F o
2026-01-01T00:00:03Z stderr F bad
broken line
2026-01-01T00:00:04Z stdout F 
";

    fn show(rendering: Rendering, portion: usize) -> String {
        let mut renderer = Renderer::new(rendering);
        let mut output = Vec::new();
        for raw in LOG.as_bytes().chunks(portion) {
            renderer.push(raw, &mut output);
        }
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn lines_show_as_asked_for_however_the_file_is_cut() {
        let since = Some("2026-01-01T00:00:02.05Z".parse().unwrap());
        let cases = [
            (Rendering::default(), "one\ntwo\nbad\n\n"),
            (Rendering { stream: StreamFilter::Stderr, ..Rendering::default() }, "bad\n"),
            (Rendering { stream: StreamFilter::Stdout, ..Rendering::default() }, "one\ntwo\n\n"),
            (Rendering { since, ..Rendering::default() }, "o\nbad\n\n"),
            (Rendering { limit_bytes: Some(6), ..Rendering::default() }, "one\ntw"),
            (Rendering { limit_bytes: Some(0), ..Rendering::default() }, ""),
            (
                Rendering { timestamps: true, ..Rendering::default() },
                "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z bad\n2026-01-01T00:00:04Z \n",
            ),
        ];
        for (rendering, wanted) in cases {
            for portion in [1, 7, 1000] {
                assert_eq!(show(rendering.clone(), portion), wanted, "{rendering:?} in portions of {portion}");
            }
        }
    }

    #[test]
    fn lines_of_other_formats_are_no_lines() {
        for raw in ["", "text", "t stdout", "t stdin F x", "t stdout X x", " stdout F x"] {
            assert_eq!(LogLine::parse(raw.as_bytes()), None, "{raw:?}");
        }
        let line = LogLine::parse(b"t stdout P:x a b").unwrap();
        assert!(line.partial);
        assert_eq!(line.text, b"a b");
    }
}
