//! Plots as SVG: bars for engines side by side, a line for what grows.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const LEFT: f64 = 130.0;
const BAR: f64 = 26.0;
const HEIGHT: f64 = 300.0;
const TOP: f64 = 44.0;

/// Bars of a logarithmic length: engines are orders of magnitude apart.
pub fn bars(title: &str, unit: &str, values: &[(&str, f64)]) -> String {
    let least = values.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min) / 3.0;
    let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let room = WIDTH - LEFT - 90.0;
    let bottom = f64::from(u32::try_from(values.len()).unwrap()).mul_add(BAR + 8.0, TOP);
    let mut svg = head(title, bottom + 16.0);
    let mut y = TOP;
    for (name, value) in values {
        let length = (value / least).ln() / (most / least).ln() * room;
        let colour = if *name == "monopod" { "#2b7a4b" } else { "#8a94a6" };
        let middle = y + BAR * 0.7;
        write!(
            svg,
            "<text x='{}' y='{middle}' text-anchor='end'>{name}</text>\
             <rect x='{LEFT}' y='{y}' width='{length:.1}' height='{BAR}' fill='{colour}'/>\
             <text x='{:.1}' y='{middle}'>{value:.2} {unit}</text>",
            LEFT - 8.0,
            LEFT + length + 8.0
        )
        .unwrap();
        y += BAR + 8.0;
    }
    svg + "</svg>\n"
}

/// A line through points, from zero.
pub fn line(title: &str, unit: &str, below: &str, points: &[(f64, f64)]) -> String {
    let most = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).fold(0.0, f64::max).max(1.0);
    let (most_x, most_y) = (most(|point| point.0), most(|point| point.1) * 1.2);
    let (left, bottom) = (70.0, TOP + HEIGHT);
    let place =
        |point: &(f64, f64)| (left + point.0 / most_x * (WIDTH - left - 60.0), bottom - point.1 / most_y * HEIGHT);
    let mut svg = head(title, bottom + 44.0);
    let path: Vec<String> = points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    write!(
        svg,
        "<path d='M{left},{TOP} V{bottom} H{}' fill='none' stroke='#444'/>\
         <polyline points='{}' fill='none' stroke='#2b7a4b' stroke-width='2'/>",
        WIDTH - 20.0,
        path.join(" ")
    )
    .unwrap();
    for point in points {
        let (x, y) = place(point);
        write!(
            svg,
            "<circle cx='{x:.1}' cy='{y:.1}' r='4' fill='#2b7a4b'/>\
             <text x='{x:.1}' y='{:.1}' text-anchor='middle'>{:.2} {unit}</text>\
             <text x='{x:.1}' y='{:.1}' text-anchor='middle'>{:.0}</text>",
            y - 10.0,
            point.1,
            bottom + 16.0,
            point.0
        )
        .unwrap();
    }
    writeln!(svg, "<text x='{}' y='{}' text-anchor='middle'>{below}</text></svg>", WIDTH / 2.0, bottom + 36.0).unwrap();
    svg
}

fn head(title: &str, height: f64) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='sans-serif' font-size='12'>\
         <rect width='100%' height='100%' fill='white'/><text x='16' y='24' font-size='15'>{title}</text>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_is_the_slowest_engine() {
        let svg = bars("Start", "ms", &[("monopod", 4.0), ("podman", 200.0)]);
        let widths: Vec<f64> =
            svg.split("width='").skip(2).filter_map(|rest| rest.split('\'').next()?.parse().ok()).collect();
        assert!(widths[0] < widths[1] && widths[1] <= WIDTH, "{widths:?}");
        assert!(svg.ends_with("</svg>\n"));
    }

    #[test]
    fn points_keep_their_order() {
        let svg = line("Start", "ms", "running Pods", &[(0.0, 4.0), (500.0, 5.0)]);
        assert!(svg.contains("500") && svg.contains("5.00 ms"), "{svg}");
    }
}
