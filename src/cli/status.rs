//! `moongate status`: how a running gateway is, from its admin API, for people and for scripts.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::StatusOptions;
use crate::config::{Config, Secret};

/// How long each step of asking may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is asked again with `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest answer that is read: 100,000 endpoints or so.
const LONGEST: u64 = 64 << 20;

/// Tells how the gateway is. Ends with 0 if all is well: it is ready, each service has an endpoint that requests go to, and no
/// plugin has failed or is in quarantine; and else with 1.
pub fn run(options: &StatusOptions) -> ExitCode {
    let mut before = None;
    loop {
        let began = Instant::now();
        let status = match Status::ask(options) {
            Ok(status) => status,
            Err(error) => {
                eprintln!("{error:#}");
                return ExitCode::FAILURE;
            }
        };
        let text = match options.json {
            true => format!("{:#}\n", status.json()),
            false => status.text(before.as_ref(), std::io::stdout().is_terminal()),
        };
        let clear = if options.watch && std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        // Nobody who closes a pipe wants to hear of it.
        if write!(std::io::stdout(), "{clear}{text}").and_then(|()| std::io::stdout().flush()).is_err() {
            return ExitCode::FAILURE;
        }
        if !options.watch {
            return if status.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        std::thread::sleep(INTERVAL.saturating_sub(began.elapsed()));
        before = Some((status, began));
    }
}

/// What the gateway says.
struct Status {
    admin: SocketAddr,
    /// Why it is not ready, if it is not.
    unready: Option<String>,
    services: Value,
    plugins: Value,
    at: Instant,
}

impl Status {
    fn ask(options: &StatusOptions) -> Result<Status> {
        let admin = options.admin.unwrap_or(Config::default().admin);
        let ask = |path| ask(admin, path, options.token.as_ref());
        let document = |path| {
            let (status, body) = ask(path)?;
            ensure!(status == 200, "http://{admin}{path} answers {status}: {}", body.trim_end());
            serde_json::from_str(&body).with_context(|| format!("reading http://{admin}{path}"))
        };
        let unready = match ask("/readyz")? {
            (200, _) => None,
            (503, why) => Some(why.trim_end().to_owned()),
            (status, why) => bail!("http://{admin}/readyz answers {status}: {}", why.trim_end()),
        };
        let (services, plugins) = (document("/api/v1/services")?, document("/api/v1/plugins")?);
        Ok(Status { admin, unready, services, plugins, at: Instant::now() })
    }

    fn services(&self) -> impl Iterator<Item = &Value> {
        self.services["services"].as_array().into_iter().flatten()
    }

    fn plugins(&self) -> impl Iterator<Item = &Value> {
        self.plugins["plugins"].as_array().into_iter().flatten()
    }

    fn is_well(&self) -> bool {
        let bad = |plugin: &Value| ["failed", "quarantined"].iter().any(|it| plugin["state"] == *it);
        self.unready.is_none() && self.services().all(|it| candidates(it) > 0) && !self.plugins().any(bad)
    }

    fn json(&self) -> Value {
        json!({
            "ready": self.unready.is_none(),
            "well": self.is_well(),
            "reason": self.unready,
            "registries": self.services["registries"],
            "services": self.services["services"],
            "plugins": self.plugins["plugins"],
        })
    }

    /// As tables; `before`: what it was, and so how many requests a second there are.
    fn text(&self, before: Option<&(Status, Instant)>, coloured: bool) -> String {
        let paint = Paint(coloured && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()));
        let mut out = String::new();
        let ready = match &self.unready {
            None => paint.good("ready"),
            Some(why) => paint.bad(why),
        };
        let (services, endpoints) = (self.services().count(), self.services().map(|it| list(it).len()).sum::<usize>());
        let used: usize = self.services().map(candidates).sum();
        // A `String` takes everything.
        let _ = writeln!(
            out,
            "{}: {ready}; {services} services, requests go to {used} of {endpoints} endpoints",
            self.admin
        );
        for registry in self.services["registries"].as_array().into_iter().flatten() {
            let state = text(registry, "state");
            let state = if state == "live" { paint.good(state) } else { paint.bad(state) };
            let _ = writeln!(out, "registry {}: {state}", text(registry, "name"));
        }
        let head = ["SERVICE", "ENDPOINT", "HEALTH", "WEIGHT", "IN FLIGHT", "LATENCY", "PICKS", "FAILED", "PICKS/S"];
        let width = if before.is_some() { head.len() } else { head.len() - 1 };
        let mut table = Table::new(&head[..width]);
        let known =
            before.map(|(status, _)| (status.picks(), self.at.duration_since(status.at).as_secs_f64().max(0.001)));
        for service in self.services() {
            let name = text(service, "name");
            if list(service).is_empty() {
                table.row(vec![name.to_owned(), paint.bad("none")]);
            }
            for (number, endpoint) in list(service).iter().enumerate() {
                let (address, picks) = (text(endpoint, "address"), endpoint["picks"].as_u64().unwrap_or(0));
                let mut row = vec![
                    if number == 0 { name.to_owned() } else { String::new() },
                    address.to_owned(),
                    health(endpoint, &paint),
                    endpoint["weight"].to_string(),
                    endpoint["inflight"].to_string(),
                    micros(&endpoint["latency_us"]),
                    picks.to_string(),
                    endpoint["failed"].to_string(),
                ];
                if let Some((then, seconds)) = &known {
                    let then = then.get(&(name.to_owned(), address.to_owned())).copied().unwrap_or(picks);
                    row.push(format!("{:.0}", picks.saturating_sub(then) as f64 / seconds));
                }
                table.row(row);
            }
        }
        out += &table.text();
        let mut table = Table::new(&["PLUGIN", "STATE", "KIND", "VERSION", "CALLS", "TRAPS", "MEAN CALL", "WHY"]);
        for plugin in self.plugins().filter(|it| it["state"] != "available") {
            let state = text(plugin, "state");
            table.row(vec![
                text(plugin, "name").to_owned(),
                if state == "active" { paint.good(state) } else { paint.bad(state) },
                text(plugin, "kind").to_owned(),
                text(plugin, "version").to_owned(),
                plugin["picks"].as_u64().map(|it| it.to_string()).unwrap_or_default(),
                plugin["traps"].as_u64().map(|it| it.to_string()).unwrap_or_default(),
                plugin["mean_call_ns"].as_f64().map(|it| format!("{it:.0} ns")).unwrap_or_default(),
                text(plugin, "error").lines().next().unwrap_or_default().to_owned(),
            ]);
        }
        out += &table.text();
        out
    }

    /// Picks by service and endpoint.
    fn picks(&self) -> HashMap<(String, String), u64> {
        let of = |service: &Value| {
            let name = text(service, "name").to_owned();
            let picks =
                |it: &Value| ((name.clone(), text(it, "address").to_owned()), it["picks"].as_u64().unwrap_or(0));
            list(service).iter().map(picks).collect::<Vec<_>>()
        };
        self.services().flat_map(of).collect()
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list(service: &Value) -> &[Value] {
    service["endpoints"].as_array().map_or(&[], Vec::as_slice)
}

/// How many endpoints requests go to.
fn candidates(service: &Value) -> usize {
    list(service).iter().filter(|it| it["candidate"] == true).count()
}

fn health(endpoint: &Value, paint: &Paint) -> String {
    let health = text(endpoint, "health");
    match (health, endpoint["candidate"] == true) {
        ("healthy", true) => paint.good(health),
        ("healthy", false) => "healthy, spare".to_owned(),
        _ => paint.bad(&format!("{health}: {}", text(endpoint, "reason"))),
    }
}

fn micros(value: &Value) -> String {
    match value.as_u64().unwrap_or(0) {
        0 => "-".to_owned(),
        it @ 1..1_000 => format!("{it} us"),
        it => format!("{:.1} ms", it as f64 / 1e3),
    }
}

/// Colours, or none.
struct Paint(bool);

impl Paint {
    fn good(&self, text: &str) -> String {
        self.with("32", text)
    }

    fn bad(&self, text: &str) -> String {
        self.with("31", text)
    }

    fn with(&self, colour: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Columns as wide as what is in them.
struct Table(Vec<Vec<String>>);

impl Table {
    fn new(head: &[&str]) -> Table {
        Table(vec![head.iter().map(|it| it.to_string()).collect()])
    }

    fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }

    /// With a line before it; nothing if there is no row.
    fn text(&self) -> String {
        let Table(rows) = self;
        if rows.len() < 2 {
            return String::new();
        }
        let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|it| seen(it)).max().unwrap_or(0);
        let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
        let mut out = "\n".to_owned();
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line += cell;
                line += &" ".repeat(width - seen(cell) + 2);
            }
            out += line.trim_end();
            out.push('\n');
        }
        out
    }
}

/// How many characters of it are seen.
fn seen(cell: &str) -> usize {
    let mut pieces = cell.split("\x1b[");
    let first = pieces.next().unwrap_or_default().chars().count();
    first + pieces.map(|it| it.split_once('m').map_or(0, |(_, rest)| rest.chars().count())).sum::<usize>()
}

/// One document of the admin API, with its status.
fn ask(mut admin: SocketAddr, path: &str, token: Option<&Secret>) -> Result<(u16, String)> {
    if admin.ip().is_unspecified() {
        // What is served on all addresses is served on this one.
        admin.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let context = || format!("asking http://{admin}{path}");
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).with_context(context)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(context)?;
    // What was cut into pieces on the way would have to be put together again; HTTP/1.0 does not know of it.
    let mut request = format!("GET {path} HTTP/1.0\r\nhost: {admin}\r\naccept: application/json\r\n");
    if let Some(Secret(token)) = token {
        ensure!(token.bytes().all(|it| it.is_ascii_graphic()), "MOONGATE_ADMIN_TOKEN has characters that no token has");
        request += &format!("authorization: Bearer {token}\r\n");
    }
    stream.write_all((request + "\r\n").as_bytes()).with_context(context)?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).with_context(context)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").with_context(context).context("it gives no answer of HTTP")?;
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).with_context(context)?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(services: Value, plugins: Value) -> Status {
        let admin = SocketAddr::from(([127, 0, 0, 1], 9900));
        let services = json!({ "registries": [{ "name": "file", "state": "live" }], "services": services });
        Status { admin, unready: None, services, plugins: json!({ "plugins": plugins }), at: Instant::now() }
    }

    fn endpoint(address: &str, health: &str, candidate: bool) -> Value {
        json!({
            "address": address, "health": health, "reason": "5 failures in a row", "candidate": candidate, "weight": 1,
            "inflight": 2, "latency_us": 1500, "picks": 70, "failed": 5,
        })
    }

    #[test]
    fn all_is_well_or_it_is_not() {
        let good = json!([{ "name": "s", "endpoints": [endpoint("10.0.0.1:1", "healthy", true), endpoint("10.0.0.2:1", "ejected", false)] }]);
        assert!(status(good.clone(), json!([{ "name": "random", "state": "available" }])).is_well());
        assert!(!status(good.clone(), json!([{ "name": "mine", "state": "quarantined" }])).is_well());
        assert!(!Status { unready: Some("no".into()), ..status(good, json!([])) }.is_well());
        for endpoints in [json!([]), json!([endpoint("10.0.0.1:1", "unhealthy", false)])] {
            assert!(!status(json!([{ "name": "s", "endpoints": endpoints }]), json!([])).is_well());
        }
    }

    #[test]
    fn tables_line_up_with_colours_and_without() {
        let endpoints = json!([endpoint("10.0.0.1:1", "healthy", true), endpoint("10.0.0.12:10", "ejected", false)]);
        let services = json!([{ "name": "shop", "endpoints": endpoints }, { "name": "gone", "endpoints": [] }]);
        let status = status(services, json!([{ "name": "mine", "state": "failed", "error": "no wasm\nat all" }]));
        let plain = status.text(None, false);
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines[0], "127.0.0.1:9900: ready; 2 services, requests go to 1 of 2 endpoints");
        assert_eq!(
            lines[4],
            "shop     10.0.0.1:1    healthy                       1       2          1.5 ms   70     5"
        );
        assert_eq!(
            lines[5],
            "         10.0.0.12:10  ejected: 5 failures in a row  1       2          1.5 ms   70     5"
        );
        assert_eq!(lines[6], "gone     none");
        assert!(plain.ends_with("no wasm\n") && !plain.contains('\x1b'), "{plain}");
        assert_eq!(seen("\x1b[31mnone\x1b[0m!"), 5);
        let later = Status { at: status.at + Duration::from_secs(2), ..status };
        let before = super::tests::status(later.services["services"].clone(), json!([]));
        let before = Status { at: later.at - Duration::from_secs(2), ..before };
        assert!(later.text(Some(&(before, Instant::now())), false).contains("PICKS/S"));
    }
}
