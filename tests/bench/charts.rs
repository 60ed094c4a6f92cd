//! A chart of each scenario: bars of what it is about for each subject, mostly CPU time.

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

/// What a row of a scenario may be about, fields of one unit, and what a chart says of it.
const FIGURES: [(&[&str], &str); 7] = [
    (
        &["cpu_us_per_request_min"],
        "CPU of all server processes: µs for each request, least of all rounds; shorter is better",
    ),
    (&["instructions_per_request"], "instructions for each request; shorter is better"),
    (&["ms_min"], "milliseconds from start to first answer, least of all; shorter is better"),
    (&["rss_mib"], "MiB of memory; shorter is better"),
    (&["ms_until_in_force_median"], "milliseconds until a change is in force; shorter is better"),
    (&["ms_of_1000", "ms_of_1000000"], "milliseconds among 1,000 clients and among 1,000,000; shorter is better"),
    (&["admitted", "bound"], "registrations: the bound is what may be registered at most"),
];

/// A bar: what it stands for, its length, and whether it is ours.
type Bar = (String, f64, bool);

/// Writes `SCENARIO.svg` for each scenario with figures.
pub fn write(results: &Path, rows: &[Value]) {
    let mut charts: BTreeMap<&str, (&str, Vec<Bar>)> = BTreeMap::new();
    for row in rows {
        let has = |(fields, _): &&(&[&str], &str)| row[fields[0]].is_f64() || row[fields[0]].is_u64();
        let Some((fields, says)) = FIGURES.iter().find(has) else { continue };
        let scenario = row["scenario"].as_str().unwrap();
        let is_grown = row["count"].is_u64() && TOGETHER.iter().any(|start| scenario.starts_with(start));
        let (chart, label) = if is_grown { ("growth", scenario.replace('_', " ")) } else { (scenario, label(row)) };
        let bars = &mut charts.entry(chart).or_insert_with(|| (says, Vec::new())).1;
        for field in *fields {
            let label = if fields.len() > 1 { format!("{label}: {}", field.replace('_', " ")) } else { label.clone() };
            let is_ours =
                !label.starts_with("envoy") && !["oidc-provider", "mcp-sdk"].iter().any(|p| label.starts_with(p));
            bars.push((label, row[field].as_f64().unwrap(), is_ours));
        }
    }
    for (name, (says, bars)) in charts {
        draw(&results.join(format!("{name}.svg")), name, says, &bars);
    }
}

/// Who is measured, and among what.
fn label(row: &Value) -> String {
    let names = ["subject", "database", "page"].iter().filter_map(|name| row[name].as_str().map(str::to_owned));
    let numbers = ["workers", "connections", "tenants", "clients", "stores", "envoys"];
    let numbers = numbers.iter().filter_map(|name| row[name].as_u64().map(|number| format!("{number} {name}")));
    names.chain(numbers).collect::<Vec<_>>().join(", ")
}

fn draw(path: &Path, name: &str, says: &str, bars: &[Bar]) {
    let height = TOP as u32 + BAR as u32 * bars.len() as u32 + 12;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let text = |text: &str, x: i32, y: i32, size: i32| {
        area.draw(&Text::new(text.to_owned(), (x, y), ("sans-serif", size).into_font().color(&BLACK))).unwrap();
    };
    text(name, 12, 10, 18);
    text(says, 12, 32, 13);
    let most = bars.iter().map(|(_, cpu, _)| *cpu).fold(0.0, f64::max);
    let room = f64::from(WIDTH as i32 - LABELS - NUMBERS);
    for ((label, cpu, is_ours), top) in bars.iter().zip((TOP..).step_by(BAR as usize)) {
        let length = (cpu / most * room) as i32;
        let color = if *is_ours { RGBColor(0, 90, 160) } else { RGBColor(150, 150, 150) };
        area.draw(&Rectangle::new([(LABELS, top + 3), (LABELS + length, top + BAR - 5)], color.filled())).unwrap();
        text(label, 12, top + 5, 13);
        let digits = if *cpu < 10.0 { 2 } else { 1 };
        text(&format!("{cpu:.digits$}"), LABELS + length + 6, top + 5, 13);
    }
    area.present().unwrap();
}
