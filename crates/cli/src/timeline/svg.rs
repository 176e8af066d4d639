//! Draws a life as an SVG picture (W3C SVG 1.1). Pure.

use std::fmt::Write as _;

use super::bars::length;
use super::life::{Lane, Life, Stage};
use super::scale::Scale;

const BAR_WIDTH: f64 = 820.0;
const NAME_WIDTH: f64 = 190.0;
const ROW: f64 = 30.0;
const TOP: f64 = 64.0;
const MARGIN: f64 = 20.0;
/// Times on the axis stand at least so far apart.
const LABEL: f64 = 70.0;

fn colour(stage: Stage) -> (&'static str, &'static str) {
    match stage {
        Stage::Waiting => ("#d9dce1", "waiting"),
        Stage::Pulling => ("#5b8def", "pulling"),
        Stage::Starting => ("#7fc8d8", "starting"),
        Stage::Running => ("#f2c14e", "running, not ready"),
        Stage::Ready => ("#4caf6d", "ready"),
        Stage::Trouble => ("#d9534f", "trouble"),
        Stage::BackOff => ("#f0a9a7", "back-off"),
        Stage::Terminating => ("#9b6fc4", "terminating"),
        Stage::Ended(0) => ("#8a9099", "ended well"),
        Stage::Ended(_) => ("#b02a26", "ended with an error"),
    }
}

/// The whole picture.
pub fn draw(life: &Life, title: &str) -> String {
    let scale = Scale::new(life, BAR_WIDTH);
    let mut used: Vec<(&str, &str)> = Vec::new();
    let mut body = String::new();
    axis(&mut body, life, &scale);
    for (row, lane) in life.lanes.iter().enumerate() {
        lane_of(&mut body, life, &scale, lane, top_of(row));
        for stretch in &lane.stretches {
            let ink = colour(stretch.stage);
            if !used.contains(&ink) {
                used.push(ink);
            }
        }
    }
    let bottom = top_of(life.lanes.len()) + 12.0;
    legend(&mut body, &used, bottom);
    let (width, height) = (NAME_WIDTH + BAR_WIDTH + 2.0 * MARGIN, bottom + 30.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{}</text>\n{body}</svg>\n",
        escaped(title)
    )
}

fn top_of(row: usize) -> f64 {
    TOP + ROW * f64::from(u32::try_from(row).unwrap_or(u32::MAX))
}

fn x_of(column: f64) -> f64 {
    MARGIN + NAME_WIDTH + column
}

fn axis(body: &mut String, life: &Life, scale: &Scale) {
    let mut free_from = 0.0;
    for (time, column) in scale.turns().filter(|(_, column)| *column <= BAR_WIDTH - LABEL / 2.0) {
        if column >= free_from {
            let x = x_of(column);
            put(
                body,
                format_args!(
                    "<text x=\"{x:.1}\" y=\"52\" font-size=\"11\" fill=\"#555\">{}</text>",
                    length(life.from, time)
                ),
            );
            free_from = column + LABEL;
        }
    }
    for (from, to) in &scale.cuts {
        let x = x_of(from.midpoint(*to));
        put(
            body,
            format_args!(
                "<text x=\"{x:.1}\" y=\"52\" fill=\"#555\" text-anchor=\"middle\">⋯<title>drawn shorter than it is</title></text>"
            ),
        );
    }
}

fn lane_of(body: &mut String, life: &Life, scale: &Scale, lane: &Lane, top: f64) {
    let role = if lane.role.is_empty() || lane.role == "app" { String::new() } else { format!(" ({})", lane.role) };
    let weight = if lane.role.is_empty() { " font-weight=\"bold\"" } else { "" };
    let baseline = top + 16.0;
    put(
        body,
        format_args!(
            "<text x=\"{MARGIN}\" y=\"{baseline}\"{weight}>{}</text>",
            escaped(&format!("{}{role}", lane.name))
        ),
    );
    for stretch in &lane.stretches {
        let (from, to) = (scale.column(stretch.from), scale.column(stretch.to));
        let (fill, word) = colour(stretch.stage);
        let is_end = matches!(stretch.stage, Stage::Ended(_));
        // An end is a point in time; all else is as long as it took, and never too thin to be seen.
        let (width, height, y) = if is_end { (3.0, 24.0, top - 2.0) } else { ((to - from).max(1.0), 20.0, top) };
        let when = length(life.from, stretch.from);
        let text = match stretch.stage {
            Stage::Ended(code) => format!("{word}, exit code {code}, at {when}"),
            _ => format!("{word}: {} from {when}", length(stretch.from, stretch.to)),
        };
        put(
            body,
            format_args!(
                "<rect x=\"{:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{fill}\"><title>{}</title></rect>",
                x_of(from),
                escaped(&text)
            ),
        );
    }
}

fn legend(body: &mut String, used: &[(&str, &str)], top: f64) {
    let mut x = x_of(0.0);
    for (fill, word) in used {
        put(body, format_args!("<rect x=\"{x}\" y=\"{top}\" width=\"12\" height=\"12\" fill=\"{fill}\"/>"));
        put(body, format_args!("<text x=\"{}\" y=\"{}\" font-size=\"12\">{word}</text>", x + 17.0, top + 11.0));
        x += 34.0 + 7.0 * f64::from(u32::try_from(word.len()).unwrap_or(u32::MAX));
    }
}

fn put(body: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _written: std::fmt::Result = writeln!(body, "{line}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
