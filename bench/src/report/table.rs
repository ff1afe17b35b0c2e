//! Tables, as text that is Markdown, too.

use std::fmt::Write as _;

use crate::results::{Measured, Round, Row, Run, Spread};

fn number(value: f64) -> String {
    match value {
        it if !it.is_finite() => "-".into(),
        it if it >= 1000.0 => format!("{it:.0}"),
        it if it >= 100.0 => format!("{it:.1}"),
        it => format!("{it:.2}"),
    }
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1}", bytes / f64::from(1 << 20))
}

fn ratio(spread: Option<Spread>) -> String {
    spread.map_or("-".into(), |it| format!("{:.2} ({:.2} to {:.2})", it.median, it.least, it.most))
}

/// Median, least and most of whole numbers.
fn spread(row: &Row, of: impl Fn(&Round) -> f64) -> String {
    let all = Spread::of(row.rounds.iter().map(of));
    all.map_or("-".into(), |it| format!("{:.0} ({:.0} to {:.0})", it.median, it.least, it.most))
}

/// Cells in columns as wide as they need to be; the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|it| it[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (nth, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let _ = match column {
                0 => write!(text, "| {cell:<0$} ", widths[0]),
                _ => write!(text, "| {cell:>0$} ", widths[column]),
            };
        }
        text.push_str("|\n");
        if nth == 0 {
            for (column, width) in widths.iter().enumerate() {
                let _ = match column {
                    0 => write!(text, "|{}", "-".repeat(width + 2)),
                    _ => write!(text, "|{}:", "-".repeat(width + 1)),
                };
            }
            text.push_str("|\n");
        }
    }
    text
}

fn cells(measured: &Measured, row: &Row) -> Vec<String> {
    let nginx = measured.row("nginx").and_then(|it| row.ratio(it)).map_or("-".into(), |it| format!("{:.2}", it.median));
    let against = ratio(measured.row(&row.against).and_then(|it| row.ratio(it)));
    if measured.is_idle() {
        let grown = row.median(|it| it.for_each_connection) / 1024.0;
        let idle = mebibytes(row.median(|it| it.memory.proportional as f64));
        return vec![row.label.clone(), number(grown), against, nginx, idle];
    }
    vec![
        row.label.clone(),
        number(row.median(|it| it.cpu_us())),
        against,
        nginx,
        number(row.median(|it| it.user_us())),
        format!("{:.0}", row.median(|it| it.requests_a_second())),
        format!("{:.2}", row.median(|it| it.utilisation())),
        format!("{:.0}", row.median(|it| it.outcome.p50)),
        spread(row, |it| it.outcome.p99),
        format!("{:.0}", row.median(|it| it.outcome.p999)),
        mebibytes(row.median(|it| it.memory.proportional as f64)),
    ]
}

/// One workload's.
pub(crate) fn of(measured: &Measured) -> String {
    let mut text = format!("**{}**: {}", measured.name, measured.about);
    let first = measured.rows.first().map_or("", |it| &it.against);
    let against = if measured.rows.iter().all(|it| it.against == first) { first } else { "its own" };
    let against = format!("x {against} (least to most)");
    let head = if measured.is_idle() {
        vec!["", "KiB a connection", &against, "x nginx", "MiB before"]
    } else {
        let _ = write!(
            text,
            "; {} rounds of {} s, machine load {:.1}",
            measured.rounds, measured.seconds, measured.machine_load
        );
        let middle = ["x nginx", "user us", "requests/s", "util", "p50 us", "p99 us", "p99.9 us", "MiB"];
        [&["", "CPU us", &against][..], &middle].concat()
    };
    text.push_str("\n\n");
    let mut rows = vec![head.into_iter().map(str::to_owned).collect()];
    rows.extend(measured.rows.iter().map(|it| cells(measured, it)));
    text.push_str(&aligned(&rows));
    for note in &measured.notes {
        let _ = write!(text, "\n{note}\n");
    }
    text
}

/// Where a document has the tables.
const MARKS: (&str, &str) = ("<!-- bench: tables -->", "<!-- bench: end -->");

/// A document with the tables of this run, in place of those between its marks; without marks, the tables alone.
pub(crate) fn placed(document: &str, run: &Run) -> String {
    let tables = all(run);
    let split = document.split_once(MARKS.0).and_then(|(before, rest)| Some((before, rest.split_once(MARKS.1)?.1)));
    match split {
        Some((before, after)) => format!("{before}{}\n\n{tables}\n{}{after}", MARKS.0, MARKS.1),
        None => tables,
    }
}

/// All of a run's.
pub(crate) fn all(run: &Run) -> String {
    let mut text = String::new();
    for line in &run.about {
        let _ = writeln!(text, "{line}  ");
    }
    for measured in &run.workloads {
        let _ = write!(text, "\n{}", of(measured));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_take_the_place_of_those_before() {
        let run = Run { about: vec!["a machine".into()], workloads: Vec::new() };
        let document = "Before\n<!-- bench: tables -->\nold\n<!-- bench: end -->\nAfter\n";
        let once = placed(document, &run);
        assert!(once.starts_with("Before\n") && once.ends_with("\nAfter\n") && !once.contains("old"), "{once}");
        assert!(once.contains("a machine"));
        assert_eq!(placed(&once, &run), once);
        assert_eq!(placed("no marks", &run), all(&run));
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["", "us"], ["nginx", "1.00"]].map(|it| it.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "|       |   us |\n|-------|-----:|\n| nginx | 1.00 |\n");
    }
}
