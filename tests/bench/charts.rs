//! A chart of each scenario: bars of CPU time for each subject.

use std::collections::BTreeMap;
use std::path::Path;

use plotters::prelude::*;
use serde_json::Value;

const WIDTH: u32 = 760;
const TOP: i32 = 52;
const BAR: i32 = 26;
const LABELS: i32 = 270;
const NUMBERS: i32 = 70;

/// Scenarios that make one chart together: their names begin with these.
const TOGETHER: [&str; 3] = ["tenants_", "rules_", "clients_"];

/// A bar: what it stands for, its length, and whether it is ours.
type Bar = (String, f64, bool);

/// Writes `SCENARIO.svg` for each scenario of which CPU time was measured.
pub fn write(results: &Path, rows: &[Value]) {
    let mut charts: BTreeMap<&str, Vec<Bar>> = BTreeMap::new();
    for row in rows {
        let Some(cpu) = row["cpu_us_per_request_min"].as_f64() else { continue };
        let (scenario, subject) = (row["scenario"].as_str().unwrap(), row["subject"].as_str().unwrap());
        let is_grown = row["count"].is_u64() && TOGETHER.iter().any(|start| scenario.starts_with(start));
        let (chart, label) = if is_grown {
            ("growth", scenario.replace('_', " "))
        } else {
            let (workers, connections) = (&row["workers"], &row["connections"]);
            (scenario, format!("{subject}, {workers} workers, {connections} conn."))
        };
        charts.entry(chart).or_default().push((label, cpu, subject.starts_with("dcr-edge")));
    }
    for (name, bars) in charts {
        draw(&results.join(format!("{name}.svg")), name, &bars);
    }
}

fn draw(path: &Path, name: &str, bars: &[Bar]) {
    let height = TOP as u32 + BAR as u32 * bars.len() as u32 + 12;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let text = |text: &str, x: i32, y: i32, size: i32| {
        area.draw(&Text::new(text.to_owned(), (x, y), ("sans-serif", size).into_font().color(&BLACK))).unwrap();
    };
    text(&format!("{name}: CPU of all server processes"), 12, 10, 18);
    text("microseconds for each request, least of all rounds; shorter is better", 12, 32, 13);
    let most = bars.iter().map(|(_, cpu, _)| *cpu).fold(0.0, f64::max);
    let room = f64::from(WIDTH as i32 - LABELS - NUMBERS);
    for ((label, cpu, is_ours), top) in bars.iter().zip((TOP..).step_by(BAR as usize)) {
        let length = (cpu / most * room) as i32;
        let color = if *is_ours { RGBColor(0, 90, 160) } else { RGBColor(150, 150, 150) };
        area.draw(&Rectangle::new([(LABELS, top + 3), (LABELS + length, top + BAR - 5)], color.filled())).unwrap();
        text(label, 12, top + 5, 13);
        text(&format!("{cpu:.1}"), LABELS + length + 6, top + 5, 13);
    }
    area.present().unwrap();
}
