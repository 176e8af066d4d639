//! kubectl's JSONPath templates, as far as people use them: text, `{.a.b}`, `{.items[*].metadata.name}`, `{..name}`,
//! `{["a.b"]}`, `{.items[0]}`, slices, filters such as `{.items[?(@.kind=="Pod")]}`, `{range …}…{end}` and `{"\n"}`.
//!
//! Source: kubernetes.io, "JSONPath Support".

use std::iter::Peekable;
use std::str::Chars;

use serde_json::Value;

use crate::fields::plain;

/// A template, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Node>);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Path(Path),
    Range(Path, Vec<Node>),
}

/// A way from a value to others.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// Whether it starts at the whole document even inside of a range.
    from_root: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    All,
    Deep(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Filter(Path, Option<(String, Value)>),
}

impl Template {
    /// Reads a template; `.metadata.name` without braces is one, too.
    pub fn parse(text: &str) -> Result<Self, String> {
        let braced = if text.contains('{') { text.to_owned() } else { format!("{{{text}}}") };
        let mut rest = braced.as_str();
        let nodes = parse_nodes(&mut rest, false)?;
        Ok(Self(nodes))
    }

    /// What it makes of a document.
    pub fn render(&self, document: &Value) -> String {
        let mut output = String::new();
        render(&self.0, document, document, &mut output);
        output
    }
}

impl Path {
    /// Reads a path, such as `.metadata.creationTimestamp`, with or without braces and the first dot.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.trim().trim_start_matches('{').trim_end_matches('}').trim();
        parse_path(bare)
    }

    /// The values that it leads to.
    pub fn find<'a>(&self, here: &'a Value, root: &'a Value) -> Vec<&'a Value> {
        let start = if self.from_root { root } else { here };
        self.steps.iter().fold(vec![start], |found, step| found.into_iter().flat_map(|value| step.of(value)).collect())
    }
}

fn parse_nodes(rest: &mut &str, in_range: bool) -> Result<Vec<Node>, String> {
    let mut nodes = Vec::new();
    loop {
        let Some((text, after)) = rest.split_once('{') else {
            if in_range {
                return Err("a {range} has no {end}".to_owned());
            }
            if !rest.is_empty() {
                nodes.push(Node::Text((*rest).to_owned()));
            }
            return Ok(nodes);
        };
        if !text.is_empty() {
            nodes.push(Node::Text(text.to_owned()));
        }
        let end = closing_brace(after).ok_or("an opening brace has no closing one")?;
        let (inside, after) = after.split_at(end);
        *rest = after.get(1..).unwrap_or_default();
        let inside = inside.trim();
        match inside.strip_prefix("range ") {
            Some(path) => {
                let path = parse_path(path.trim())?;
                nodes.push(Node::Range(path, parse_nodes(rest, true)?));
            }
            None if inside == "end" && in_range => return Ok(nodes),
            None if inside == "end" => return Err("an {end} has no {range}".to_owned()),
            None if inside.starts_with(['"', '\'']) => nodes.push(Node::Text(quoted(inside)?)),
            None => nodes.push(Node::Path(parse_path(inside)?)),
        }
    }
}

fn closing_brace(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (index, letter) in text.char_indices() {
        match (quote, letter) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), _) if letter == open => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, '}') => return Some(index),
            (Some(_) | None, _) => {}
        }
    }
    None
}

fn quoted(text: &str) -> Result<String, String> {
    let mut letters = text.chars().peekable();
    let value = read_quoted(&mut letters)?;
    if letters.next().is_some() { Err(format!("after the text {text} something follows")) } else { Ok(value) }
}

fn read_quoted(letters: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let open = letters.next().unwrap_or_default();
    let mut value = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => value.push(match letters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(other) => other,
                None => break,
            }),
            _ if letter == open => return Ok(value),
            _ => value.push(letter),
        }
    }
    Err("a quoted text does not end".to_owned())
}

fn parse_path(text: &str) -> Result<Path, String> {
    let mut letters = text.chars().peekable();
    let from_root = letters.next_if_eq(&'$').is_some();
    if !from_root {
        letters.next_if_eq(&'@');
    }
    let mut steps = Vec::new();
    while let Some(letter) = letters.peek().copied() {
        match letter {
            '.' => {
                letters.next();
                let is_deep = letters.next_if_eq(&'.').is_some();
                if letters.peek() == Some(&'[') && !is_deep {
                    continue;
                }
                let name = read_name(&mut letters);
                match name.as_str() {
                    "" if is_deep => return Err(format!("{text:?}: a name is missing after `..`")),
                    "" => {}
                    "*" => steps.push(Step::All),
                    _ if is_deep => steps.push(Step::Deep(name)),
                    _ => steps.push(Step::Key(name)),
                }
            }
            '[' => {
                letters.next();
                steps.push(read_bracket(&mut letters, text)?);
            }
            _ if steps.is_empty() => match read_name(&mut letters).as_str() {
                "" => return Err(format!("{text:?} is not a path")),
                "*" => steps.push(Step::All),
                name => steps.push(Step::Key(name.to_owned())),
            },
            _ => return Err(format!("{text:?}: unexpected {letter:?}")),
        }
    }
    Ok(Path { from_root, steps })
}

/// Up to the next dot or bracket; `\.` is a dot of the name.
fn read_name(letters: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(letter) = letters.next_if(|letter| !matches!(letter, '.' | '[')) {
        if letter == '\\' { name.extend(letters.next()) } else { name.push(letter) }
    }
    name.trim().to_owned()
}

fn read_bracket(letters: &mut Peekable<Chars<'_>>, text: &str) -> Result<Step, String> {
    if matches!(letters.peek(), Some('"' | '\'')) {
        let name = read_quoted(letters)?;
        return if letters.next() == Some(']') {
            Ok(Step::Key(name))
        } else {
            Err(format!("{text:?}: `]` is missing"))
        };
    }
    let (mut inside, mut depth, mut quote) = (String::new(), 0_u32, None);
    loop {
        let letter = letters.next().ok_or_else(|| format!("{text:?}: `]` is missing"))?;
        match (quote, letter) {
            (None, ']') if depth == 0 => break,
            (None, ']') => depth -= 1,
            (None, '[') => depth += 1,
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            _ => {}
        }
        inside.push(letter);
    }
    let inside = inside.trim();
    let number = |text: &str| text.trim().parse::<i64>().map_err(|error| format!("{text:?} is not a number: {error}"));
    let bound = |text: &str| if text.trim().is_empty() { Ok(None) } else { number(text).map(Some) };
    if inside == "*" {
        Ok(Step::All)
    } else if let Some(filter) = inside.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        read_filter(filter.trim())
    } else if let Some((from, to)) = inside.split_once(':') {
        Ok(Step::Slice(bound(from)?, bound(to)?))
    } else {
        number(inside).map(Step::Index)
    }
}

fn read_filter(text: &str) -> Result<Step, String> {
    for operator in ["==", "!=", ">=", "<=", ">", "<"] {
        let Some((left, right)) = text.split_once(operator) else { continue };
        let right = right.trim();
        let value = if right.starts_with(['"', '\'']) {
            Value::from(quoted(right)?)
        } else {
            serde_json::from_str(right)
                .map_err(|error| format!("{right:?} is no quoted text and no number: {error}"))?
        };
        return Ok(Step::Filter(parse_path(left.trim())?, Some((operator.to_owned(), value))));
    }
    Ok(Step::Filter(parse_path(text)?, None))
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        match self {
            Self::Key(name) => value.get(name).into_iter().collect(),
            Self::All => match value {
                Value::Object(fields) => fields.values().collect(),
                _ => list.iter().collect(),
            },
            Self::Deep(name) => {
                let mut found = Vec::new();
                deep(value, name, &mut found);
                found
            }
            Self::Index(index) => position(*index, list.len()).and_then(|index| list.get(index)).into_iter().collect(),
            Self::Slice(from, to) => {
                let bound = |bound: Option<i64>, absent: usize| match bound {
                    Some(bound) if bound < 0 => position(bound, list.len()).unwrap_or(0),
                    Some(bound) => usize::try_from(bound).unwrap_or(0).min(list.len()),
                    None => absent,
                };
                list.get(bound(*from, 0)..bound(*to, list.len())).unwrap_or_default().iter().collect()
            }
            Self::Filter(path, condition) => list
                .iter()
                .filter(|item| path.find(item, item).into_iter().any(|found| holds(found, condition.as_ref())))
                .collect(),
        }
    }
}

fn position(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { length + index } else { index }).ok()
}

fn deep<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(name));
            fields.values().for_each(|inner| deep(inner, name, found));
        }
        Value::Array(list) => list.iter().for_each(|inner| deep(inner, name, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn holds(found: &Value, condition: Option<&(String, Value)>) -> bool {
    let Some((operator, wanted)) = condition else { return true };
    let order = compare(found, wanted);
    match operator.as_str() {
        "==" => order.is_eq(),
        "!=" => order.is_ne(),
        ">=" => order.is_ge(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_lt(),
    }
}

/// Numbers by size, all else as text.
pub fn compare(one: &Value, other: &Value) -> std::cmp::Ordering {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        _ => plain(one).cmp(&plain(other)),
    }
}

fn render(nodes: &[Node], here: &Value, root: &Value, output: &mut String) {
    for node in nodes {
        match node {
            Node::Text(text) => output.push_str(text),
            Node::Path(path) => {
                let shown: Vec<String> = path.find(here, root).into_iter().map(plain).collect();
                output.push_str(&shown.join(" "));
            }
            Node::Range(path, inner) => {
                for value in path.find(here, root) {
                    render(inner, value, root, output);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_are_those_of_kubectl() {
        let list = json!({"kind": "List", "items": [
            {"kind": "Pod", "metadata": {"name": "a", "labels": {"app.io/x": "1"}}, "status": {"n": 3, "ips": ["x", "y"]}},
            {"kind": "Pod", "metadata": {"name": "b"}, "status": {"n": 5, "ready": true}},
        ]});
        let table = [
            ("{.kind}", "List"),
            (".kind", "List"),
            ("kind={.kind}!", "kind=List!"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].metadata.name}", "a"),
            ("{.items[-1].metadata.name}", "b"),
            ("{.items[0:1].metadata.name}", "a"),
            ("{.items[0].metadata.labels.app\\.io/x}", "1"),
            ("{.items[0].metadata.labels['app.io/x']}", "1"),
            ("{.items[0]['metadata'].name}", "a"),
            ("{..name}", "a b"),
            ("{.items[?(@.metadata.name==\"b\")].status.n}", "5"),
            ("{.items[?(@.status.n>4)].metadata.name}", "b"),
            ("{.items[?(@.status.ready)].metadata.name}", "b"),
            ("{range .items[*]}{.metadata.name}{\"\\t\"}{.status.n}{\"\\n\"}{end}done", "a\t3\nb\t5\ndone"),
            ("{range .items[*]}{$.kind}{'}'}{end}", "List}List}"),
            ("{.items[0].status.ips}", "[\"x\",\"y\"]"),
            ("{.missing}", ""),
            ("{.items[*].status.ready}", "true"),
        ];
        for (template, shown) in table {
            assert_eq!(Template::parse(template).unwrap().render(&list), shown, "{template}");
        }
        for wrong in ["{.a", "{end}", "{range .a}", "{.a[}", "{.a[x]}", "{..}", "{\"a}", "{.a[?(@.b==c)]}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }
}
