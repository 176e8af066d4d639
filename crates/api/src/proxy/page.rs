//! Pages in HTML whose links are rewritten; all else of them stays as it is, byte for byte.

use std::io::{self, Read as _};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use futures::StreamExt as _;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Response, response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};

use crate::http::reply::Reply;
use crate::proxy::links::Links;

/// What is larger is no page, and is handed on as it comes.
const LARGEST: usize = 16 << 20;

/// Attributes that hold a URL.
const URLS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// What stands in these is no HTML (HTML Standard, "raw text elements").
const RAW: [&str; 4] = ["script", "style", "textarea", "title"];

/// Whether the answer is a page.
pub fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim() == "text/html"
}

/// The page with its links rewritten. One in an encoding that is not understood, or that is too large, stays as it is.
pub async fn rewrite(mut head: response::Parts, mut body: Incoming, links: &Links) -> Reply {
    let encoding = head.headers.get(CONTENT_ENCODING).map(|encoding| encoding.as_bytes().to_vec());
    let is_gzip = match encoding.as_deref() {
        None | Some(b"") => false,
        Some(b"gzip") => true,
        Some(_) => return as_it_comes(head, Bytes::new(), body),
    };
    let mut page = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => page.extend_from_slice(&data),
            Ok(Err(_trailers)) => {}
            Err(error) => return broken(head, page.freeze(), error),
        }
        if page.len() > LARGEST {
            return as_it_comes(head, page.freeze(), body);
        }
    }
    let page = page.freeze();
    let rewritten = if is_gzip { rewrite_gzip(&page, links).unwrap_or(page) } else { rewrite_html(&page, links) };
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Full::new(rewritten).map_err(|never| match never {}).boxed_unsync())
}

fn as_it_comes(head: response::Parts, begin: Bytes, body: Incoming) -> Reply {
    let begin = futures::stream::once(async move { Ok(Frame::data(begin)) });
    let rest = http_body_util::BodyStream::new(body).map(|frame| frame.map_err(io::Error::other));
    Response::from_parts(head, StreamBody::new(begin.chain(rest)).boxed_unsync())
}

/// The server hung up: the client sees as much as there was, and that it is not all.
fn broken(head: response::Parts, begin: Bytes, error: hyper::Error) -> Reply {
    let frames = [Ok(Frame::data(begin)), Err(io::Error::other(error))];
    Response::from_parts(head, StreamBody::new(futures::stream::iter(frames)).boxed_unsync())
}

/// `None` if it is damaged, or larger than it should be.
fn rewrite_gzip(page: &[u8], links: &Links) -> Option<Bytes> {
    let mut plain = Vec::new();
    GzDecoder::new(page).take(u64::try_from(LARGEST).ok()? + 1).read_to_end(&mut plain).ok()?;
    if plain.len() > LARGEST {
        return None;
    }
    let rewritten = rewrite_html(&Bytes::from(plain), links);
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(&*rewritten, Compression::fast()).read_to_end(&mut packed).ok()?;
    Some(packed.into())
}

/// Goes through the tags; what is no tag with a URL is copied.
fn rewrite_html(page: &Bytes, links: &Links) -> Bytes {
    // A page in another encoding than UTF-8 keeps ASCII where it matters, but cannot be taken apart safely.
    let Ok(text) = std::str::from_utf8(page) else { return page.clone() };
    let mut output = String::with_capacity(text.len() + 256);
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let (before, tag) = rest.split_at(start);
        output.push_str(before);
        if !begins_tag(tag) {
            rest = copy(tag, 1, &mut output).unwrap_or_default();
            continue;
        }
        let written = output.len();
        let Some(after) = rewrite_tag(tag, links, &mut output) else {
            // It has no end, so nothing after it is a tag, either.
            output.truncate(written);
            rest = tag;
            break;
        };
        rest = after;
    }
    output.push_str(rest);
    output.into()
}

fn begins_tag(text: &str) -> bool {
    text.starts_with("<!--") || text.get(1..).is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// Writes one tag or comment, with the raw text that belongs to it, and returns what follows. `None` if it breaks off.
fn rewrite_tag<'a>(text: &'a str, links: &Links, output: &mut String) -> Option<&'a str> {
    if text.starts_with("<!--") {
        let end = text.find("-->").map_or(text.len(), |end| end + 3);
        return copy(text, end, output);
    }
    let name_end = text.get(1..)?.find(|c: char| !c.is_ascii_alphanumeric())? + 1;
    let name = text.get(1..name_end)?.to_ascii_lowercase();
    let urls = URLS.iter().find(|(tag, _)| *tag == name).map_or(&[][..], |(_, attributes)| *attributes);
    let mut rest = copy(text, name_end, output)?;
    loop {
        let gap = rest.find(|c: char| !c.is_ascii_whitespace() && c != '/')?;
        rest = copy(rest, gap, output)?;
        if rest.starts_with('>') {
            rest = copy(rest, 1, output)?;
            break;
        }
        let end = rest.find(|c: char| c.is_ascii_whitespace() || "=>/".contains(c)).filter(|end| *end > 0).unwrap_or(1);
        let attribute = rest.get(..end)?.to_ascii_lowercase();
        rest = copy(rest, end, output)?;
        rest = rewrite_value(rest, urls.contains(&attribute.as_str()).then_some(links), output)?;
    }
    if RAW.contains(&name.as_str()) {
        let end = find_end_tag(rest, &name).unwrap_or(rest.len());
        rest = copy(rest, end, output)?;
    }
    Some(rest)
}

/// The value of an attribute, if it has one.
fn rewrite_value<'a>(text: &'a str, links: Option<&Links>, output: &mut String) -> Option<&'a str> {
    let equals = text.find(|c: char| !c.is_ascii_whitespace())?;
    if !text.get(equals..)?.starts_with('=') {
        return Some(text);
    }
    let begin = equals + 1 + text.get(equals + 1..)?.find(|c: char| !c.is_ascii_whitespace())?;
    let rest = copy(text, begin, output)?;
    let quote = rest.chars().next().filter(|c| *c == '"' || *c == '\'');
    let (rest, end) = match quote {
        Some(quote) => {
            let rest = copy(rest, 1, output)?;
            (rest, rest.find(quote)?)
        }
        None => (rest, rest.find(|c: char| c.is_ascii_whitespace() || c == '>')?),
    };
    let value = rest.get(..end)?;
    match links.and_then(|links| links.rewrite(value)) {
        Some(rewritten) => output.push_str(&rewritten),
        None => output.push_str(value),
    }
    let rest = rest.get(end..)?;
    if quote.is_some() { copy(rest, 1, output) } else { Some(rest) }
}

fn find_end_tag(text: &str, name: &str) -> Option<usize> {
    let closes = |at: &usize| {
        let tag = text.get(at + 2..at + 2 + name.len());
        tag.is_some_and(|tag| tag.eq_ignore_ascii_case(name))
    };
    text.match_indices("</").map(|(at, _)| at).find(closes)
}

fn copy<'a>(text: &'a str, length: usize, output: &mut String) -> Option<&'a str> {
    let (copied, rest) = text.split_at_checked(length)?;
    output.push_str(copied);
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links { prefix: "/p".to_owned(), own_host: "10.85.0.2:80".to_owned(), asked_host: String::new() }
    }

    fn rewritten(page: &str) -> String {
        String::from_utf8(rewrite_html(&Bytes::from(page.to_owned()), &links()).to_vec()).unwrap()
    }

    #[test]
    fn links_lead_through_the_proxy_and_all_else_is_untouched() {
        let table = [
            ("<a href=\"/x\">/y</a>", "<a href=\"/p/x\">/y</a>"),
            ("<A HREF='/x' class=/y>", "<A HREF='/p/x' class=/y>"),
            ("<img src=/a.png alt=\"/b\"/>", "<img src=/p/a.png alt=\"/b\"/>"),
            ("<a  href = \"http://10.85.0.2:80/x?a=1&amp;b=2\">", "<a  href = \"/p/x?a=1&amp;b=2\">"),
            ("<a href=\"x\"><a href=\"https://example.org/\">", "<a href=\"x\"><a href=\"https://example.org/\">"),
            ("<!-- <a href=\"/x\"> --><b>", "<!-- <a href=\"/x\"> --><b>"),
            (
                "<script src=\"/s.js\">if (a<b) s = '<a href=\"/x\">'</script><a href=/z>",
                "<script src=\"/p/s.js\">if (a<b) s = '<a href=\"/x\">'</script><a href=/p/z>",
            ),
            ("1 < 2 <", "1 < 2 <"),
            ("<input disabled formaction=\"/go\">", "<input disabled formaction=\"/p/go\">"),
        ];
        for (page, expected) in table {
            assert_eq!(rewritten(page), expected, "{page}");
        }
    }

    #[test]
    fn no_page_is_cut() {
        // A tag without an end is handed on, wherever it breaks off.
        let page = "<a href=\"/x\" b='c' d =e f>é<!-- x --><script>y</script>";
        let boundaries = (0..page.len()).filter(|end| page.is_char_boundary(*end));
        for part in boundaries.filter_map(|end| page.get(..end)) {
            assert_eq!(rewritten(part).replace("/p/x", "/x"), part);
        }
    }

    #[test]
    fn a_packed_page_is_packed_again() {
        let mut packed = Vec::new();
        flate2::read::GzEncoder::new(&b"<a href=/x>"[..], Compression::fast()).read_to_end(&mut packed).unwrap();
        let again = rewrite_gzip(&packed, &links()).unwrap();
        let mut plain = String::new();
        GzDecoder::new(&*again).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, "<a href=/p/x>");
        assert_eq!(rewrite_gzip(b"no gzip", &links()), None);
    }
}
