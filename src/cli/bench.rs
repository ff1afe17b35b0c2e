//! `moongate plugin bench`: what a plugin costs, next to the bundled one of the same kind, measured in the same run. One that
//! is called directly is measured as a component as well.
//!
//! The figures are those of this machine at this moment; the ratio between the two is what to look at.

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use http::{Method, StatusCode};

use super::rig::{self, CLIENT, Rig};
use super::subject;
use crate::config::Kind;
use crate::message::{RequestHead, ResponseHead};
use crate::plugin::bundled::BUNDLED;
use crate::plugin::engine::Limits;
use crate::plugin::host::{Answered, Exchange, Step};
use crate::plugin::{Binding, Calling, Engine, Failure, Plugin};

/// Samples of which the median counts, so that a moment in which the machine did something else is not seen.
const SAMPLES: usize = 15;

/// How long a sample takes at least: so long that what the clock costs is nothing.
const SAMPLE: Duration = Duration::from_millis(8);

/// The most calls of a sample, should they take no time at all.
const MOST: u64 = 1 << 30;

/// How long a call may take here. Not what a gateway allows: it is measured here, not judged.
const LIMIT: Duration = Duration::from_secs(10);

/// Instances whose memory is measured.
const INSTANCES: u32 = 16;

/// What is to be measured.
#[derive(Args, Clone, Debug)]
pub struct BenchOptions {
    /// The WebAssembly file
    pub file: PathBuf,
    /// What the plugin is configured with: JSON, or @FILE with JSON [default: {}]
    #[arg(long, value_name = "JSON", value_parser = subject::config)]
    pub config: Option<Arc<str>>,
}

/// Measures and prints a table.
pub fn run(options: &BenchOptions) -> ExitCode {
    match bench(options) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error:#}", options.file.display());
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &BenchOptions) -> Result<String> {
    let engine = Engine::new(Limits { call: LIMIT, ..subject::limits() })?;
    let plugin = subject::load(&engine, &options.file)?;
    let component = match plugin.calling {
        Calling::Directly => Some(subject::load_as_component(&engine, &options.file)?),
        Calling::AsComponent(_) => None,
    };
    let kinds = plugin.described.kinds;
    let config = options.config.clone().unwrap_or_else(|| "{}".into());
    let mut text = String::new();
    for kind in [Kind::Balancer, Kind::Filter] {
        // A balancer that looks at responses is a balancer, and has no peer among the filters.
        let alone = kind == Kind::Filter && kinds.balancer && !kinds.request_filter;
        if !kinds.serve(kind) || alone {
            continue;
        }
        let mine = Measured::of(&engine, &plugin, kind, &config)?;
        let other = component.as_ref().map(|it| Measured::of(&engine, it, kind, &config)).transpose()?;
        let (peer, its) = peer(&engine, kind)?;
        let mut columns = vec![(&*plugin.name, plugin.calling.word(), mine.rows())];
        columns.extend(other.map(|it| ("the same", "as a component", it.rows())));
        columns.push((&*peer.name, peer.calling.word(), its.rows()));
        text += &table(&columns);
    }
    if let Some(why) = plugin.calling.why_not() {
        text += &format!("{} is called as a component, because {why}.\n", plugin.name);
    }
    if cfg!(debug_assertions) {
        text += "This gateway was built without optimisation: only the ratios say something.\n";
    }
    Ok(text)
}

/// The bundled plugin of a kind, and what it costs.
fn peer(engine: &Engine, kind: Kind) -> Result<(Arc<Plugin>, Measured)> {
    let (name, config) = match kind {
        Kind::Balancer => ("round-robin", "{}"),
        Kind::Filter => ("set-header", r#"{"name": "x-bench", "value": "1", "on": "both"}"#),
    };
    let bytes = BUNDLED.iter().find(|it| it.0 == name).map(|it| it.1);
    let bytes = bytes.with_context(|| format!("the gateway was built without {name}"))?;
    let plugin = Arc::new(Plugin::compile(engine, name.into(), bytes, true, 1)?);
    let measured = Measured::of(engine, &plugin, kind, &config.into())?;
    Ok((plugin, measured))
}

/// What a plugin costs.
struct Measured {
    /// What is called, and its nanoseconds.
    calls: Vec<(&'static str, f64)>,
    /// Nanoseconds of making an instance, and of throwing it away.
    start: f64,
    /// Bytes of resident memory that one more instance takes, once it is configured and was called.
    resident: f64,
    /// Bytes of its linear memory.
    memory: u64,
    compile: Duration,
    size: usize,
}

impl Measured {
    fn of(engine: &Engine, plugin: &Arc<Plugin>, kind: Kind, config: &Arc<str>) -> Result<Measured> {
        let rig = || Rig::new(engine, plugin, None);
        let told = |failure| anyhow!("{} with {config}: {failure}", plugin.name);
        let (mut first, list) = (rig(), rig::endpoints(&[1; 8]));
        let binding = first.bind(kind, config);
        first.configure(&binding, &list).map_err(told)?;
        let calls = match kind {
            Kind::Balancer => picks(&mut first, &binding),
            Kind::Filter => steps(&mut first, &binding),
        };
        let calls = calls.map_err(told)?;
        let start = nanoseconds(|| first.start()).map_err(told)?;

        let before = resident()?;
        let mut many = Vec::new();
        for _ in 0..INSTANCES {
            let mut one = rig();
            let binding = one.bind(kind, config);
            one.configure(&binding, &list).map_err(told)?;
            many.push((one, binding));
        }
        let resident = resident()?.saturating_sub(before) as f64 / f64::from(INSTANCES);
        let (compile, size) = (plugin.compile_time, plugin.described.size);
        Ok(Measured { calls, start, resident, memory: first.memory(), compile, size })
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> =
            self.calls.iter().map(|&(what, ns)| Row { what, value: ns, unit: Unit::Time }).collect();
        rows.extend([
            Row { what: "start an instance", value: self.start, unit: Unit::Time },
            Row { what: "memory of an instance", value: self.resident, unit: Unit::Size },
            Row { what: "linear memory", value: self.memory as f64, unit: Unit::Size },
            Row { what: "compile", value: self.compile.as_nanos() as f64, unit: Unit::Time },
            Row { what: "file", value: self.size as f64, unit: Unit::Size },
        ]);
        rows
    }
}

/// A pick among few and among many.
fn picks(rig: &mut Rig, binding: &Arc<Binding>) -> Result<Vec<(&'static str, f64)>, Failure> {
    let mut measured = Vec::new();
    for (what, count) in [("pick of 8 endpoints", 8), ("pick of 1,000 endpoints", 1000)] {
        let list = rig::endpoints(&vec![1; count]);
        let (mut head, client) = rig::request(1);
        let ns = nanoseconds(|| {
            let turn = rig::turn(binding, client);
            black_box(rig.pick(binding, &list, &mut head, turn)?);
            Ok(())
        })?;
        measured.push((what, ns));
    }
    Ok(measured)
}

/// Makes what a filter is shown.
type Make<'a> = &'a dyn Fn() -> Box<Exchange>;

/// A request and a response of eight fields. What is made for each call, because filters change it, is taken off.
fn steps(rig: &mut Rig, binding: &Arc<Binding>) -> Result<Vec<(&'static str, f64)>, Failure> {
    let (request, response) = messages();
    let asked = || Box::new(Exchange::new(request.clone(), "/shop/item?id=1".to_owned(), CLIENT, 0));
    let answered = || {
        let mut exchange = asked();
        let endpoint = ([10, 0, 0, 1], 80).into();
        exchange.response = Some(Answered { head: response.clone(), endpoint });
        exchange
    };
    let steps: [(&str, bool, Step<'_>, Make<'_>); 2] = [
        ("request of 8 fields", rig.kinds().request_filter, Step::Request { body: false }, &asked),
        ("response of 8 fields", rig.kinds().response_filter, Step::Response { body: false }, &answered),
    ];
    let mut measured = Vec::new();
    for (what, _, step, make) in steps.into_iter().filter(|it| it.1) {
        let making = nanoseconds(|| {
            black_box(make());
            Ok(())
        })?;
        let ns = nanoseconds(|| {
            let (exchange, outcome) = rig.step(binding, make(), step);
            black_box(exchange);
            outcome.map(|verdict| drop(black_box(verdict)))
        })?;
        measured.push((what, (ns - making).max(0.0)));
    }
    Ok(measured)
}

fn messages() -> (RequestHead, ResponseHead) {
    let mut request = RequestHead::new(Method::GET, "/item?id=1");
    for (name, value) in [
        ("host", "shop.example"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        ("accept", "text/html,application/xhtml+xml"),
        ("accept-language", "en-US,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br"),
        ("cookie", "session=0123456789abcdef"),
        ("referer", "https://shop.example/"),
        ("x-request-id", "7f0e0b52c9b64d5ea4a1"),
    ] {
        request.fields.append(name, value.as_bytes());
    }
    let mut response = ResponseHead::new(StatusCode::OK);
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("server", "origin"),
        ("cache-control", "max-age=60"),
        ("etag", "\"33a64df5\""),
        ("vary", "accept-encoding"),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("set-cookie", "seen=1; Path=/"),
    ] {
        response.fields.append(name, value.as_bytes());
    }
    (request, response)
}

/// Nanoseconds of one call: the median of some samples, after as many calls as fill one.
fn nanoseconds(mut call: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let mut sample = |calls: u64| -> Result<Duration, Failure> {
        let began = Instant::now();
        for _ in 0..calls {
            call()?;
        }
        Ok(began.elapsed())
    };
    // This is the warm-up as well.
    let mut calls = 1;
    while sample(calls)? < SAMPLE && calls < MOST {
        calls *= 2;
    }
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        samples.push(sample(calls)?.as_nanos() as f64 / calls as f64);
    }
    Ok(median(samples))
}

/// The one in the middle of an odd number of them.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Bytes of this process that are in memory. From `status` and not `statm`, which counts in pages of a size that would
/// have to be asked for.
fn resident() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    resident_in(&text).context("/proc/self/status has no VmRSS")
}

fn resident_in(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// A line of the table.
#[derive(Clone, Copy)]
struct Row {
    what: &'static str,
    value: f64,
    unit: Unit,
}

#[derive(Clone, Copy)]
enum Unit {
    /// In nanoseconds.
    Time,
    /// In bytes.
    Size,
}

impl Unit {
    /// In three digits.
    fn told(self, value: f64) -> String {
        let (step, names): (f64, &[&str]) = match self {
            Unit::Time => (1e3, &["ns", "µs", "ms", "s"]),
            Unit::Size => (1024.0, &["B", "KiB", "MiB", "GiB"]),
        };
        let mut value = value;
        let mut unit = 0;
        // So that what is rounded up to a whole unit is told in it.
        while value >= step - 0.5 && unit + 1 < names.len() {
            value /= step;
            unit += 1;
        }
        let digits = if unit == 0 || value >= 99.95 { 0 } else { 1 };
        format!("{value:.digits$} {}", names[unit])
    }
}

/// What each is called, how it is called, and what it costs; and the ratio of the first to the last, where both have a
/// figure.
fn table(columns: &[(&str, &str, Vec<Row>)]) -> String {
    let (Some((_, _, mine)), Some((_, _, peer))) = (columns.first(), columns.last()) else { return String::new() };
    let width = columns.iter().map(|(name, called, _)| name.chars().count().max(called.len())).max().unwrap_or(0);
    let width = width.max(10);
    let line = |what: &str, cells: &mut dyn Iterator<Item = String>, ratio: &str| {
        let cells: String = cells.map(|cell| format!(" {cell:>width$}")).collect();
        format!("{what:<24}{cells}  {ratio:>5}\n")
    };
    let mut text = line("", &mut columns.iter().map(|it| it.0.to_owned()), "ratio");
    text += &line("called", &mut columns.iter().map(|it| it.1.to_owned()), "");
    for row in mine {
        let of = |rows: &[Row]| rows.iter().find(|it| it.what == row.what).copied();
        let peer = of(peer).filter(|it| it.value > 0.0);
        let ratio = peer.map(|it| format!("{:.2}", row.value / it.value)).unwrap_or_default();
        let cell = |rows: &[Row]| of(rows).map(|it| it.unit.told(it.value)).unwrap_or_default();
        text += &line(row.what, &mut columns.iter().map(|it| cell(&it.2)), &ratio);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_both_and_their_ratio() {
        let row = |what, value, unit| Row { what, value, unit };
        let mine =
            vec![row("pick", 250.4, Unit::Time), row("file", 3.0 * 1048576.0, Unit::Size), row("own", 1.0, Unit::Size)];
        let its = vec![row("file", 0.0, Unit::Size), row("pick", 125.2, Unit::Time)];
        let wanted = [
            "                                mine round-robin  ratio",
            "called                      directly    directly       ",
            "pick                          250 ns      125 ns   2.00",
            "file                         3.0 MiB         0 B       ",
            "own                              1 B                   ",
        ];
        let columns = [("mine", "directly", mine.clone()), ("round-robin", "directly", its.clone())];
        assert_eq!(table(&columns).lines().collect::<Vec<_>>(), wanted);
        let columns = [columns[0].clone(), ("the same", "as a component", its.clone()), columns[1].clone()];
        let text = table(&columns);
        let pick = text.lines().nth(2).unwrap();
        assert_eq!(
            pick.split_whitespace().collect::<Vec<_>>(),
            ["pick", "250", "ns", "125", "ns", "125", "ns", "2.00"]
        );
    }

    #[test]
    fn figures_have_three_digits() {
        for (value, unit, text) in [
            (999.4, Unit::Time, "999 ns"),
            (999.6, Unit::Time, "1.0 µs"),
            (22_140.0, Unit::Time, "22.1 µs"),
            (123_456_789.0, Unit::Time, "123 ms"),
            (5e12, Unit::Time, "5000 s"),
            (1023.0, Unit::Size, "1023 B"),
            (1536.0, Unit::Size, "1.5 KiB"),
        ] {
            assert_eq!(unit.told(value), text);
        }
    }

    #[test]
    fn the_median_is_not_moved_by_one_bad_moment() {
        assert_eq!(median(vec![3.0, 900.0, 1.0]), 3.0);
        let mut calls = 0_u64;
        let ns = nanoseconds(|| {
            calls += 1;
            std::thread::sleep(Duration::from_micros(100));
            Ok(())
        });
        // At least what it sleeps; how much longer is the machine's business.
        assert!(ns.unwrap() >= 100_000.0);
        assert!(calls > SAMPLES as u64);
        assert_eq!(nanoseconds(|| Err(Failure::TimedOut)), Err(Failure::TimedOut));
    }

    #[test]
    fn resident_memory_is_found() {
        assert_eq!(resident_in("Name:\tx\nVmRSS:\t   12 kB\nVmData:\t 5 kB\n"), Some(12 << 10));
        assert_eq!(resident_in("Name:\tx\n"), None);
        assert!(resident().unwrap() > 1 << 20);
    }

    #[test]
    fn messages_have_eight_fields() {
        let (request, response) = messages();
        assert_eq!((request.fields.len(), response.fields.len()), (8, 8));
    }
}
