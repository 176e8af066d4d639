//! What was measured: a table for people, and JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::figures::Figures;

/// Who did the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The bare system calls.
    Floor,
    Monopod,
    /// An OCI runtime that makes a container in the machine's network: no Pod, no daemon, no log.
    Crun,
    Podman,
    Containerd,
    /// Two programs that only get an image and unpack it.
    SkopeoUmoci,
    /// What Kubernetes' API server keeps its objects in: a put or a range of the same bytes.
    Etcd,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Monopod => "monopod",
            Self::Crun => "crun alone",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::SkopeoUmoci => "skopeo+umoci",
            Self::Etcd => "etcd",
        }
    }
}

/// One work, and how each engine did it.
#[derive(Debug)]
pub struct Row {
    /// In words.
    pub work: String,
    /// Of all its figures.
    pub unit: &'static str,
    pub engines: Vec<(Engine, Figures)>,
}

impl Row {
    pub fn of(&self, engine: Engine) -> Option<&Figures> {
        self.engines.iter().find(|(of, _)| *of == engine).map(|(_, figures)| figures)
    }
}

/// All that was measured, and where.
#[derive(Debug)]
pub struct Report {
    pub machine: Vec<(&'static str, String)>,
    pub rows: Vec<Row>,
}

impl Report {
    /// One more figure of a work.
    pub fn add(&mut self, work: &str, unit: &'static str, engine: Engine, value: f64) {
        if !self.rows.iter().any(|row| row.work == work) {
            self.rows.push(Row { work: work.to_owned(), unit, engines: Vec::new() });
        }
        let Some(row) = self.rows.iter_mut().find(|row| row.work == work) else { return };
        let place = row.engines.iter().position(|(of, _)| *of == engine).unwrap_or_else(|| {
            row.engines.push((engine, Figures::default()));
            row.engines.len() - 1
        });
        row.engines[place].1.add(value);
    }

    /// One more time of a work.
    pub fn add_time(&mut self, work: &str, engine: Engine, time: std::time::Duration) {
        self.add(work, "ms", engine, time.as_secs_f64() * 1000.0);
    }

    /// What one work came to.
    pub fn row(&self, work: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.work == work)
    }

    /// The table. Ratios are of medians: to the floor, and of others to Monopod.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (what, value) in &self.machine {
            line(&mut text, &format!("{what:<12}{value}"));
        }
        line(&mut text, "");
        let head = ["work", "engine", "n", "min", "median", "p95", "to floor", "to monopod"];
        line(&mut text, &columns(&head.map(str::to_owned)));
        for row in &self.rows {
            let median = |engine| row.of(engine).map(Figures::median);
            let (floor, ours) = (median(Engine::Floor), median(Engine::Monopod));
            for (place, (engine, figures)) in row.engines.iter().enumerate() {
                let ratio = |to: Option<f64>, own: bool| match to {
                    Some(to) if !own => format!("{:.1}x", figures.median() / to),
                    Some(_) | None => String::new(),
                };
                let of = |value: f64| format!("{} {}", significant(value), row.unit);
                line(
                    &mut text,
                    &columns(&[
                        if place == 0 { row.work.clone() } else { String::new() },
                        engine.name().to_owned(),
                        figures.count().to_string(),
                        of(figures.least()),
                        of(figures.median()),
                        of(figures.rank(95)),
                        ratio(floor, *engine == Engine::Floor),
                        ratio(ours, *engine == Engine::Monopod),
                    ]),
                );
            }
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let machine: serde_json::Map<_, _> =
            self.machine.iter().map(|(what, value)| ((*what).to_owned(), Value::from(value.as_str()))).collect();
        let rows = self.rows.iter().map(|row| {
            let engines: serde_json::Map<_, _> = row
                .engines
                .iter()
                .map(|(engine, figures)| {
                    let all = json!({"count": figures.count(), "min": figures.least(), "median": figures.median(),
                        "p95": figures.rank(95)});
                    (engine.name().to_owned(), all)
                })
                .collect();
            json!({"work": row.work, "unit": row.unit, "engines": engines})
        });
        json!({"machine": machine, "rows": rows.collect::<Vec<_>>()})
    }
}

fn line(text: &mut String, content: &str) {
    writeln!(text, "{}", content.trim_end()).unwrap();
}

fn columns(cells: &[String; 8]) -> String {
    let [work, engine, n, min, median, p95, floor, ours] = cells;
    format!("{work:<52}{engine:<13}{n:>5}{min:>12}{median:>12}{p95:>12}{floor:>10}{ours:>12}")
}

/// Three digits that count.
fn significant(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_compared_to_the_floor_and_to_monopod() {
        let mut report = Report { machine: vec![("cores", "2".to_owned())], rows: Vec::new() };
        for (engine, time) in [(Engine::Floor, 2.0), (Engine::Monopod, 4.0), (Engine::Podman, 200.0)] {
            report.add("start", "ms", engine, time);
        }
        let table = report.table();
        let podman = table.lines().find(|line| line.contains("podman")).unwrap();
        let cells: Vec<&str> = podman.split_whitespace().collect();
        assert!(cells.ends_with(&["100.0x", "50.0x"]), "{table}");
        assert_eq!(report.json()["rows"][0]["engines"]["podman"]["median"], 200.0);
    }
}
