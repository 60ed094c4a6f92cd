//! Charts of how many of something there were over time: SVG, with the same figures in a table for whoever does not see
//! it. Each number of a chart comes from the database, and all of them start at zero.

use maud::{Markup, html};

use super::page::table;

/// Width of a bar with the gap after it, and the gap, in the chart's own units.
const STEP: u64 = 20;
const GAP: u64 = 4;

/// Height of the highest bar.
const HEIGHT: u64 = 90;

/// What is counted, with one number for each slice of time.
pub struct Series {
    /// Its name, also for the style sheet.
    pub class: &'static str,
    /// What is counted, for people.
    pub title: &'static str,
    /// The counts, the oldest first.
    pub counts: Vec<u64>,
}

impl Series {
    fn total(&self) -> u64 {
        self.counts.iter().copied().fold(0, u64::saturating_add)
    }

    /// The chart. `labels` says when each slice begins.
    fn show(&self, labels: &[String]) -> Markup {
        let most = self.counts.iter().copied().max().unwrap_or_default();
        let width = STEP.saturating_mul(self.counts.len() as u64).saturating_sub(GAP);
        let bars = self.counts.iter().zip(labels).enumerate().map(|(place, (count, label))| {
            // A single one among millions is seen, too.
            let scaled = u128::from(*count).saturating_mul(HEIGHT.into()).checked_div(most.into()).unwrap_or_default();
            let height = u64::try_from(scaled).unwrap_or(HEIGHT).max(if *count > 0 { 2 } else { 0 });
            (STEP.saturating_mul(place as u64), HEIGHT.saturating_sub(height), height, count, label)
        });
        html! {
            figure class={ "chart " (self.class) } {
                figcaption { span { (self.title) } strong { (self.total()) } }
                svg viewBox={ "0 0 " (width) " " (HEIGHT) } preserveAspectRatio="none" aria-hidden="true" focusable="false" {
                    line x1="0" y1=(HEIGHT) x2=(width) y2=(HEIGHT) {}
                    @for (x, y, height, count, label) in bars {
                        rect x=(x) y=(y) width=(STEP.saturating_sub(GAP)) height=(height) {
                            title { (label) ": " (count) }
                        }
                    }
                }
                p class="axis" aria-hidden="true" {
                    span { (labels.first().map_or("", String::as_str)) }
                    span { "most: " (most) }
                    span { "now" }
                }
            }
        }
    }
}

/// The charts of several series over the same slices.
pub fn show(series: &[Series], labels: &[String]) -> Markup {
    let mut head = vec!["From"];
    head.extend(series.iter().map(|series| series.title));
    let rows = html! {
        @for (place, label) in labels.iter().enumerate() {
            tr {
                th scope="row" { (label) }
                @for one in series { td class="number" { (one.counts.get(place).copied().unwrap_or_default()) } }
            }
        }
    };
    html! {
        div class="charts" { @for one in series { (one.show(labels)) } }
        details { summary { "The same figures as a table" } (table("Figures of the charts", &head, rows)) }
    }
}
