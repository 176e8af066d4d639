//! Draws a life as bars of characters, one line a container. Pure.

use k8s_openapi::jiff::Timestamp;

use super::life::{Lane, Life, Stage, Stretch};
use super::scale::{Scale, seconds};
use crate::escape::one_line;

/// How a stage is drawn: its character, its colour (ECMA-48 SGR), its name in the legend.
struct Ink {
    glyph: char,
    colour: &'static str,
    word: &'static str,
}

/// Columns between the names, the bar and what is said beside it.
const GAP: usize = 2;
/// Narrower bars say nothing.
const NARROWEST: usize = 20;
const WIDEST: usize = 120;

fn ink(stage: Stage) -> Ink {
    let (glyph, colour, word) = match stage {
        Stage::Waiting => ('·', "2", "waiting"),
        Stage::Pulling => ('↓', "34", "pulling"),
        Stage::Starting => ('▹', "36", "starting"),
        Stage::Running => ('▒', "33", "running, not ready"),
        Stage::Ready => ('█', "32", "ready"),
        Stage::Trouble => ('!', "31", "trouble"),
        Stage::BackOff => ('░', "31", "back-off"),
        Stage::Terminating => ('▚', "35", "terminating"),
        Stage::Ended(0) => (' ', "2", ""),
        Stage::Ended(_) => (' ', "31", ""),
    };
    Ink { glyph, colour, word }
}

/// The whole picture in `width` columns: axis, bars and legend.
pub fn draw(life: &Life, width: usize, colours: bool) -> String {
    let names: Vec<String> = life.lanes.iter().map(label).collect();
    let said: Vec<String> = life.lanes.iter().map(|lane| summary(life, lane)).collect();
    let longest = |texts: &[String]| texts.iter().map(|text| text.chars().count()).max().unwrap_or_default();
    let name_width = longest(&names);
    let room = width.saturating_sub(name_width + longest(&said) + 2 * GAP).clamp(NARROWEST, WIDEST);
    let scale = Scale::new(life, as_columns(room));
    let mut lines = vec![format!("{:name_width$}{:GAP$}{}", "", "", axis(life, &scale, room))];
    for ((lane, name), said) in life.lanes.iter().zip(&names).zip(&said) {
        lines.push(format!("{name:name_width$}{:GAP$}{}{:GAP$}{said}", "", bar(lane, &scale, room, colours), ""));
    }
    lines.push(String::new());
    lines.push(legend(life, &scale, colours));
    lines.iter().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// The bar of one lane alone, for a line that says more.
pub fn short_bar(life: &Life, name: &str, width: usize) -> Option<String> {
    let lane = life.lanes.iter().find(|lane| lane.name == name)?;
    Some(bar(lane, &Scale::new(life, as_columns(width)), width, false))
}

fn as_columns(width: usize) -> f64 {
    f64::from(u16::try_from(width).unwrap_or(u16::MAX))
}

fn label(lane: &Lane) -> String {
    let role = match lane.role.as_str() {
        "" | "app" => String::new(),
        role => format!(" ({role})"),
    };
    let indent = if lane.role.is_empty() { "" } else { "  " };
    format!("{indent}{}{role}", one_line(&lane.name))
}

/// What is said beside a bar: how long it took, and how it stands.
fn summary(life: &Life, lane: &Lane) -> String {
    let mut said = Vec::new();
    if let Some(reached) = lane.reached() {
        let word = if lane.role == "init" { "done" } else { "ready" };
        let is_ready = lane.stretches.iter().any(|stretch| stretch.stage == Stage::Ready);
        if is_ready || lane.role == "init" {
            said.push(format!("{word} after {}", length(life.from, reached)));
        }
    }
    match lane.restarts {
        0 => {}
        1 => said.push("1 restart".to_owned()),
        restarts => said.push(format!("{restarts} restarts")),
    }
    said.extend(lane.last().and_then(|last| standing(life, lane, last)));
    said.join(", ")
}

fn standing(life: &Life, lane: &Lane, last: Stretch) -> Option<String> {
    let since = length(life.from, last.from);
    match last.stage {
        Stage::Ended(0) if lane.role == "init" => None,
        Stage::Ended(_) if lane.role.is_empty() => Some(format!("ended at {since}")),
        Stage::Ended(code) => Some(format!("exit code {code} at {since}")),
        Stage::Ready => None,
        stage => Some(format!("{} since {since}", ink(stage).word)),
    }
}

/// Marks of the turns below which there is room to say when they were.
fn axis(life: &Life, scale: &Scale, width: usize) -> String {
    let mut letters = vec![' '; width];
    let mut free_from = 0;
    for (time, column) in scale.turns() {
        let text = if time == life.from { "0".to_owned() } else { length(life.from, time) };
        let at = cell(column);
        if at >= free_from && at + text.chars().count() <= width {
            for (place, letter) in letters.iter_mut().skip(at).zip(text.chars()) {
                *place = letter;
            }
            free_from = at + text.chars().count() + GAP;
        }
    }
    letters.into_iter().collect()
}

fn bar(lane: &Lane, scale: &Scale, width: usize, colours: bool) -> String {
    let mut cells: Vec<(char, &str)> = vec![(' ', ""); width];
    for stretch in &lane.stretches {
        let start = cell(scale.column(stretch.from));
        let end = cell(scale.column(stretch.to));
        let Ink { glyph, colour, .. } = ink(stretch.stage);
        // However short, a stretch is seen.
        for place in cells.iter_mut().take(end.max(start + 1)).skip(start) {
            *place = (glyph, colour);
        }
    }
    // Ends are points in time: whatever follows at once, they are seen.
    for stretch in &lane.stretches {
        if let Stage::Ended(code) = stretch.stage
            && let Some(place) = cells.get_mut(cell(scale.column(stretch.from)).min(width.saturating_sub(1)))
        {
            *place = (if code == 0 { '✔' } else { '✘' }, ink(stretch.stage).colour);
        }
    }
    for (from, to) in &scale.cuts {
        let middle = cell(from.midpoint(*to));
        if let Some(place) = cells.get_mut(middle).filter(|(glyph, _)| *glyph != ' ') {
            place.0 = '⋯';
        }
    }
    if !colours {
        return cells.into_iter().map(|(glyph, _)| glyph).collect();
    }
    cells.into_iter().map(|(glyph, colour)| painted(&glyph.to_string(), colour)).collect()
}

fn legend(life: &Life, scale: &Scale, colours: bool) -> String {
    let mut shown: Vec<String> = Vec::new();
    for stretch in life.lanes.iter().flat_map(|lane| &lane.stretches) {
        let Ink { glyph, colour, word } = ink(stretch.stage);
        let (mark, word) = match stretch.stage {
            Stage::Ended(0) => ('✔', "ended well"),
            Stage::Ended(_) => ('✘', "ended with an error"),
            _ => (glyph, word),
        };
        let mark = if colours { painted(&mark.to_string(), colour) } else { mark.to_string() };
        let entry = format!("{mark} {word}");
        if !shown.contains(&entry) {
            shown.push(entry);
        }
    }
    if !scale.cuts.is_empty() {
        shown.push("⋯ drawn shorter than it is".to_owned());
    }
    shown.join("   ")
}

fn painted(text: &str, colour: &str) -> String {
    if colour.is_empty() { text.to_owned() } else { format!("\u{1b}[{colour}m{text}\u{1b}[0m") }
}

/// The column that a place falls into.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "columns of a terminal, never negative")]
fn cell(column: f64) -> usize {
    column.max(0.0).round() as usize
}

/// A stretch of time as people say it: `3.2 ms`, `41 ms`, `4.02 s`, `2m3s`.
pub fn length(from: Timestamp, to: Timestamp) -> String {
    let time = seconds(from, to);
    match time {
        time if time < 0.010 => format!("{:.1} ms", time * 1e3),
        time if time < 1.0 => format!("{:.0} ms", time * 1e3),
        time if time < 100.0 => format!("{time:.2} s"),
        _ => crate::age::human(to.as_second() - from.as_second()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn moment(millis: i64, container: &str, more: &Value) -> Value {
        let at = Timestamp::from_millisecond(millis).unwrap().to_string();
        let mut moment = json!({"at": at, "kind": "container", "container": container, "restartCount": 0});
        for (key, value) in more.as_object().unwrap() {
            moment[key] = value.clone();
        }
        moment
    }

    fn life(lived: i64) -> Life {
        let moments = [
            moment(0, "setup", &json!({"role": "init", "state": "waiting"})),
            moment(0, "app", &json!({"role": "app", "state": "waiting"})),
            moment(100, "setup", &json!({"role": "init", "state": "running"})),
            moment(200, "setup", &json!({"role": "init", "state": "terminated", "exitCode": 0})),
            moment(300, "app", &json!({"role": "app", "state": "running"})),
            moment(400, "app", &json!({"role": "app", "state": "running", "ready": true})),
            json!({"at": "1970-01-01T00:00:00.400Z", "kind": "pod", "phase": "Running", "ready": true}),
        ];
        Life::read(&moments, Timestamp::from_millisecond(lived).unwrap()).unwrap()
    }

    #[test]
    fn a_short_life_is_drawn_in_proportion() {
        let expected = [
            "                0         100 ms    200 ms    300 ms    400 ms",
            "pod             ········································██████████  ready after 400 ms",
            "  setup (init)  ··········▒▒▒▒▒▒▒▒▒▒✔                               done after 200 ms",
            "  app           ······························▒▒▒▒▒▒▒▒▒▒██████████  ready after 400 ms",
            "",
            "· waiting   █ ready   ▒ running, not ready   ✔ ended well",
            "",
        ];
        assert_eq!(draw(&life(500), 86, false).split('\n').collect::<Vec<_>>(), expected);
    }

    #[test]
    fn hours_of_running_leave_the_start_to_be_seen() {
        let picture = draw(&life(7_200_000), 86, false);
        let app = picture.lines().find(|line| line.contains("app")).unwrap();
        assert!(app.matches('·').count() > 10 && app.contains('⋯'), "{picture}");
        assert!(picture.contains("drawn shorter"), "{picture}");
    }

    #[test]
    fn colours_and_narrow_places_keep_the_names_harmless() {
        let mut life = life(500);
        life.lanes[2].name = "a\u{1b}[2J".to_owned();
        let picture = draw(&life, 10, true);
        assert!(!picture.contains("\u{1b}[2J") && picture.contains("\u{1b}[32m"), "{picture:?}");
        assert_eq!(short_bar(&life, "setup", 10).unwrap().chars().count(), 10);
        let svg = super::super::svg::draw(&life, "Pod <x>");
        assert!(svg.contains("Pod &lt;x&gt;") && svg.contains("running, not ready: 100 ms from 100 ms"), "{svg}");
    }
}
