//! The picture: for each workload a bar for everybody, in units of Moongate's cost.

use std::fmt::Write as _;

use crate::results::{Measured, Row, Run, Spread};

const WIDTH: usize = 960;
const COLUMNS: usize = 2;
const GAP: usize = 32;
const MARGIN: usize = 24;
const BAR: usize = 22;
const HEAD: usize = 56;
/// Room for labels to the left of the bars, and for numbers to the right.
const LABEL: usize = 112;
const NUMBER: usize = 122;
/// A bar that is longer is cut, and its number says by how much.
const LONGEST: f64 = 4.0;

const STYLE: &str = "
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 20px; font-weight: 600 }
.name { font-weight: 600 }
.faint { fill: #6e7781; font-size: 12px }
.bar { fill: #b6bec9 }
.own { fill: #5b5bd6 }
.floor { fill: #dfe3e8 }
.spread, .one { stroke: #57606a; stroke-width: 1 }
.one { stroke-dasharray: 2 3 }
.paper { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .faint { fill: #8d96a0 }
  .bar { fill: #4d5761 } .own { fill: #8f8fff } .floor { fill: #30363d }
  .spread, .one { stroke: #8d96a0 } .paper { fill: #0d1117 }
}";

/// Text as XML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What a bar's number is: microseconds, or memory.
fn amount(measured: &Measured, row: &Row) -> String {
    let cost = row.median(|it| it.cost());
    match cost {
        it if measured.is_idle() => format!("{:.1} KiB", it / 1024.0),
        it if it >= 100.0 => format!("{it:.0} µs"),
        it => format!("{it:.1} µs"),
    }
}

/// Lines of about `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("one line at least");
        if !last.is_empty() && last.chars().count() + word.chars().count() >= width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// Draws one workload with its corner at `x`, `y`, and tells its height.
fn panel(out: &mut String, measured: &Measured, x: usize, y: usize, width: usize) -> usize {
    let _ = writeln!(out, "<text class=\"name\" x=\"{x}\" y=\"{}\">{}</text>", y + 14, escaped(&measured.name));
    for (nth, line) in wrapped(&measured.about, 62).iter().take(2).enumerate() {
        let at = y + 30 + nth * 14;
        let _ = writeln!(out, "<text class=\"faint\" x=\"{x}\" y=\"{at}\">{}</text>", escaped(line));
    }
    let bars: Vec<(&Row, Spread)> =
        measured.rows.iter().filter_map(|row| Some((row, row.ratio(measured.row(&row.against)?)?))).collect();
    let longest = bars.iter().map(|(_, it)| it.median).fold(1.0, f64::max).min(LONGEST);
    let room = (width - LABEL - NUMBER) as f64;
    let left = (x + LABEL) as f64;
    let scaled = |ratio: f64| left + ratio.min(longest) / longest * room;
    for (nth, (row, ratio)) in bars.iter().enumerate() {
        let top = y + HEAD + nth * BAR;
        let class = match row.kind.as_str() {
            "moongate" => "own",
            "floor" => "floor",
            _ => "bar",
        };
        let (end, middle) = (scaled(ratio.median), top + BAR / 2 - 2);
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{}\">{}</text>", top + 13, escaped(&row.label));
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{}\" rx=\"2\"/>",
            end - left,
            BAR - 5
        );
        if ratio.median <= longest && ratio.least < ratio.most {
            let (from, to) = (scaled(ratio.least), scaled(ratio.most));
            let _ = writeln!(
                out,
                "<line class=\"spread\" x1=\"{from:.1}\" y1=\"{middle}\" x2=\"{to:.1}\" y2=\"{middle}\"/>"
            );
        }
        let cut = if ratio.median > longest { "→ " } else { "" };
        let text = format!("{cut}{:.2} · {}", ratio.median, amount(measured, row));
        let at = left + room + 6.0;
        let _ = writeln!(out, "<text class=\"faint\" x=\"{at:.1}\" y=\"{}\">{text}</text>", top + 13);
    }
    let (one, from, to) = (scaled(1.0), y + HEAD - 4, y + HEAD + bars.len() * BAR);
    let _ = writeln!(out, "<line class=\"one\" x1=\"{one:.1}\" y1=\"{from}\" x2=\"{one:.1}\" y2=\"{to}\"/>");
    HEAD + bars.len() * BAR + GAP
}

/// The picture of a run.
pub(crate) fn of(run: &Run) -> String {
    let width = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS;
    let mut bottoms = [MARGIN + 56; COLUMNS];
    let mut panels = String::new();
    for measured in &run.workloads {
        // Into the column that is shorter.
        let column = (0..COLUMNS).min_by_key(|it| bottoms[*it]).unwrap_or(0);
        let x = MARGIN + column * (width + GAP);
        bottoms[column] += panel(&mut panels, measured, x, bottoms[column], width);
    }
    let height = bottoms.into_iter().max().unwrap_or(0) + 8;
    let machine = run.about.first().map_or("", String::as_str);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"Cost of a request by proxy\">
<style>{STYLE}</style>
<rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>
<text class=\"title\" x=\"{MARGIN}\" y=\"{}\">Processor time for each request, beside Moongate’s; shorter is better</text>
<text class=\"faint\" x=\"{MARGIN}\" y=\"{}\">{}; median and spread of the ratio over the rounds, and the median itself</text>
{panels}</svg>
",
        MARGIN + 16,
        MARGIN + 36,
        escaped(machine)
    )
}
