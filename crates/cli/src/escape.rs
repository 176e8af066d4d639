//! Shows control characters of foreign text harmlessly, since a terminal obeys them (CVE-2021-25743).

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with every control character but newline and tab written as an escape.
pub fn multi_line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_unsafe(c) && c != '\n' && c != '\t')
}

/// The text with every control character written as an escape, so that it stays one line and one table cell.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_unsafe)
}

/// Escapes a byte stream that is cut anywhere, such as a log that is followed.
#[derive(Debug, Default)]
pub struct StreamEscaper {
    /// A cut UTF-8 sequence, or a carriage return whose newline may follow.
    held: Vec<u8>,
}

impl StreamEscaper {
    /// The next bytes, escaped; what can't be judged yet is held back.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut input = std::mem::take(&mut self.held);
        input.extend_from_slice(bytes);
        let mut output = String::with_capacity(input.len());
        for chunk in input.utf8_chunks() {
            output.push_str(&escaped(chunk.valid(), |c| is_unsafe(c) && c != '\n' && c != '\t'));
            for byte in chunk.invalid() {
                push_escape(&mut output, u32::from(*byte), true);
            }
        }
        self.hold_back_cut_end(&input, &mut output);
        // A terminal in cooked mode shows CRLF, which pty programs write, as one line end.
        output.replace("\\r\n", "\n").into_bytes()
    }

    /// What is still held when the stream has ended.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut output = String::new();
        for byte in std::mem::take(&mut self.held) {
            push_escape(&mut output, u32::from(byte), true);
        }
        output.into_bytes()
    }

    fn hold_back_cut_end(&mut self, input: &[u8], output: &mut String) {
        if input.last() == Some(&b'\r') {
            output.truncate(output.len().saturating_sub("\\r".len()));
            self.held.push(b'\r');
            return;
        }
        let cut = match std::str::from_utf8(input) {
            Ok(_) => return,
            Err(_) => input.utf8_chunks().last().map(|chunk| chunk.invalid().to_vec()).unwrap_or_default(),
        };
        // Only an incomplete sequence at the very end may still become a character.
        let incomplete = std::str::from_utf8(&cut).is_err_and(|error| error.error_len().is_none());
        if incomplete && input.ends_with(&cut) {
            output.truncate(output.len().saturating_sub(cut.len() * "\\xff".len()));
            self.held = cut;
        }
    }
}

fn escaped(text: &str, must_escape: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&must_escape) {
        return Cow::Borrowed(text);
    }
    let mut output = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if must_escape(c) { push_escape(&mut output, u32::from(c), false) } else { output.push(c) }
    }
    Cow::Owned(output)
}

/// Control characters (C0, DEL, C1) and the bidirectional controls that reorder what a person reads.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

fn push_escape(output: &mut String, code: u32, byte: bool) {
    match code {
        0x0a => output.push_str("\\n"),
        0x0d => output.push_str("\\r"),
        0x09 => output.push_str("\\t"),
        _ if byte || code < 0x80 => {
            let _infallible = write!(output, "\\x{code:02x}");
        }
        _ => {
            let _infallible = write!(output, "\\u{{{code:x}}}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        for (text, shown) in [
            ("plain ünïcode 日本", "plain ünïcode 日本"),
            ("\u{1b}[31mred\u{7}", "\\x1b[31mred\\x07"),
            ("a\tb\r\n", "a\\tb\\r\\n"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("user\u{202e}gpj.exe", "user\\u{202e}gpj.exe"),
        ] {
            assert_eq!(one_line(text), shown);
        }
        assert_eq!(multi_line("a\tb\nc\u{1b}"), "a\tb\nc\\x1b");
    }

    #[test]
    fn a_stream_is_escaped_alike_however_it_is_cut() {
        let input = "é\u{1b}[2J日本\r\nlast\r".as_bytes();
        let mut whole = input.to_vec();
        whole.extend_from_slice(b"\xff\xc3");
        for cut in 0..whole.len() {
            let mut escaper = StreamEscaper::default();
            let (head, tail) = whole.split_at(cut);
            let mut output = escaper.push(head);
            output.extend(escaper.push(tail));
            output.extend(escaper.finish());
            assert_eq!(String::from_utf8(output).unwrap(), "é\\x1b[2J日本\nlast\\r\\xff\\xc3", "cut at {cut}");
        }
    }
}
