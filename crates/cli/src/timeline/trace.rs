//! What was done for a Pod, step by step: as a list with bars, and in the form that trace viewers open. Pure.

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::escape::one_line;

/// Steps with so much quiet between them belong to different happenings.
const QUIET_MILLIS: i64 = 50;
/// Columns of a bar.
const WIDTH: usize = 48;
const NANOS_PER_MILLI: i64 = 1_000_000;

/// A step as the daemon tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Step {
    name: String,
    /// How many others it is part of.
    depth: usize,
    /// Nanoseconds since 1970.
    from: i64,
    to: i64,
}

/// Reads the daemon's answer; what is not a step is passed over.
pub fn read(answer: &Value) -> Vec<Step> {
    let steps = answer.get("steps").and_then(Value::as_array).into_iter().flatten();
    steps.filter_map(|step| Step::deserialize(step).ok()).collect()
}

/// A list of the steps, each with a bar; one block for each happening, with its time.
pub fn draw(steps: &[Step]) -> String {
    let mut lines = Vec::new();
    for happening in happenings(steps) {
        let (Some(begin), Some(end)) = (happening.first().map(|step| step.from), end_of(happening)) else { continue };
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let at = Timestamp::from_nanosecond(i128::from(begin)).unwrap_or_default();
        lines.push(format!("{at}"));
        lines.push(format!("{:>10}  {:>10}  {:WIDTH$}  STEP", "BEGAN", "TOOK", ""));
        for step in happening {
            let indent = "  ".repeat(step.depth);
            let bar = bar(step, begin, end);
            let (after, took) = (millis(step.from - begin), millis(step.to - step.from));
            lines.push(format!("{after:>10}  {took:>10}  {bar:WIDTH$}  {indent}{}", one_line(&step.name)));
        }
    }
    lines.iter().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// The trace event format that ui.perfetto.dev and chrome://tracing open.
pub fn events(steps: &[Step], pod: &str) -> Value {
    // A viewer draws what overlaps in one line only if one is inside the other.
    let mut lines: Vec<Vec<i64>> = Vec::new();
    let mut events = vec![json!({"ph": "M", "name": "process_name", "pid": 1, "args": {"name": format!("Pod {pod}")}})];
    for step in steps {
        let fits = |open: &mut Vec<i64>| {
            open.retain(|end| *end > step.from);
            open.last().is_none_or(|end| *end >= step.to)
        };
        let line = lines.iter_mut().position(fits).unwrap_or(lines.len());
        match lines.get_mut(line) {
            Some(open) => open.push(step.to),
            None => lines.push(vec![step.to]),
        }
        events.push(json!({
            "ph": "X",
            "name": step.name,
            "pid": 1,
            "tid": line + 1,
            "ts": micros(step.from),
            "dur": micros(step.to - step.from),
        }));
    }
    json!({"displayTimeUnit": "ms", "traceEvents": events})
}

fn end_of(steps: &[Step]) -> Option<i64> {
    steps.iter().map(|step| step.to).max()
}

/// The steps, parted where nothing was done for a while.
fn happenings(steps: &[Step]) -> Vec<&[Step]> {
    let (mut parts, mut rest) = (Vec::new(), steps);
    while let Some(first) = rest.first() {
        let mut end = first.to;
        let within = |step: &&Step| {
            let is_near = step.from <= end + QUIET_MILLIS * NANOS_PER_MILLI;
            end = end.max(step.to);
            is_near
        };
        let length = rest.iter().take_while(within).count();
        let (part, others) = rest.split_at(length.max(1));
        parts.push(part);
        rest = others;
    }
    parts
}

fn bar(step: &Step, begin: i64, end: i64) -> String {
    let width = i64::try_from(WIDTH).unwrap_or(1);
    let whole = (end - begin).max(1);
    let column = |at: i64| usize::try_from((at - begin) * width / whole).unwrap_or_default().min(WIDTH - 1);
    let (from, to) = (column(step.from), column(step.to));
    format!("{}{}", " ".repeat(from), "▒".repeat(to - from + 1))
}

/// `1.234 ms`.
fn millis(nanos: i64) -> String {
    let micros = nanos / 1000;
    format!("{}.{:03} ms", micros / 1000, (micros % 1000).abs())
}

/// Microseconds with their fraction.
fn micros(nanos: i64) -> Value {
    let text = format!("{}.{:03}", nanos / 1000, (nanos % 1000).abs());
    serde_json::from_str(&text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Vec<Step> {
        let step = |name: &str, depth, from: i64, to: i64| json!({"name": name, "depth": depth, "from": from * 1_000, "to": to * 1_000});
        let answer = json!({"steps": [
            step("pass", 0, 0, 4_000),
            step("write", 1, 1_000, 2_000),
            step("make", 1, 1_500, 4_000),
            step("pass", 0, 900_000, 900_500),
            {"not": "a step"},
        ]});
        read(&answer)
    }

    #[test]
    fn each_happening_has_its_own_scale() {
        let expected = "\
1970-01-01T00:00:00Z
     BEGAN        TOOK                                                    STEP
  0.000 ms    4.000 ms  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  pass
  1.000 ms    1.000 ms              ▒▒▒▒▒▒▒▒▒▒▒▒▒                           write
  1.500 ms    2.500 ms                    ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒    make

1970-01-01T00:00:00.9Z
     BEGAN        TOOK                                                    STEP
  0.000 ms    0.500 ms  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  pass
";
        assert_eq!(draw(&steps()), expected);
        assert_eq!(draw(&[]), "");
    }

    #[test]
    fn viewers_get_one_line_for_what_is_inside_and_another_for_what_overlaps() {
        let events = events(&steps(), "default/web");
        let events = events["traceEvents"].as_array().unwrap();
        let lines: Vec<(&str, i64)> = events
            .iter()
            .skip(1)
            .map(|event| (event["name"].as_str().unwrap(), event["tid"].as_i64().unwrap()))
            .collect();
        assert_eq!(lines, [("pass", 1), ("write", 1), ("make", 2), ("pass", 1)]);
        assert_eq!((&events[2]["ts"], &events[2]["dur"]), (&json!(1000.0), &json!(1000.0)));
        assert_eq!(events[0]["args"]["name"], "Pod default/web");
    }
}
