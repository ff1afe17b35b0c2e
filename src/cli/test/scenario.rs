//! A scenario as its author writes it: the endpoints and picks of a balancer, or the requests of a filter, and what is
//! expected. The keys are described in `docs/plugins.md`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Result, bail};
use http::{Method, StatusCode};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::expect::Expected;
use super::passage::{Came, Sent};
use crate::cli::rig::CLIENT;
use crate::config::document::Document;
use crate::config::mistakes::{Mistake, Mistakes};
use crate::config::plugin_use::PluginConfig;
use crate::config::plugins::Share;
use crate::config::values::{self, HeaderName, MethodName, Time};
use crate::message::fields::is_value;
use crate::message::{Fields, Target};
use crate::plugin::Kinds;
use crate::registry;

/// Picks that are made where only shares are expected and nobody says how many.
const TIMES: u32 = 10_000;

/// The most that one table may ask for.
const MOST_TIMES: u32 = 1_000_000;

/// Requests in flight that one endpoint may be given.
const MOST_INFLIGHT: u32 = 10_000;

/// What is to be played, in order; what a plugin remembers lasts from the first to the last.
#[derive(Debug)]
pub(super) struct Scenario {
    /// The file.
    pub(super) path: PathBuf,
    /// What the plugin is configured with, unless the command line says otherwise.
    pub(super) config: Option<Arc<str>>,
    /// What there is to pick from, ordered by address.
    pub(super) endpoints: Vec<Known>,
    /// What a balancer is asked.
    pub(super) picks: Vec<Picks>,
    /// What a filter sees.
    pub(super) requests: Vec<Seen>,
}

/// An endpoint, and what is known of it.
#[derive(Debug)]
pub(super) struct Known {
    /// What the registry says.
    pub(super) spec: registry::Endpoint,
    /// Requests in flight.
    pub(super) inflight: u32,
    /// The time it took for its last response.
    pub(super) latency: Option<Time>,
}

/// Picks for one request.
#[derive(Debug)]
pub(super) struct Picks {
    /// Where it is written.
    pub(super) line: usize,
    /// What is asked for.
    pub(super) sent: Sent,
    /// How often.
    pub(super) times: u32,
    /// Indices that were tried before.
    pub(super) tried: Vec<u32>,
    /// What is to come of it.
    pub(super) wanted: Wanted,
}

/// What is to come of picks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// This index every time, or no opinion.
    Always(Option<u32>),
    /// These shares in millionths by index, as far as they are named, each give or take so much.
    Shares(Vec<(u32, u32)>, u32),
}

/// A request through a filter.
#[derive(Debug)]
pub(super) struct Seen {
    /// Where it is written.
    pub(super) line: usize,
    /// What the client sends.
    pub(super) sent: Sent,
    /// What the endpoint answers.
    pub(super) came: Came,
    /// What goes on, or is answered; none: anything.
    pub(super) expect: Option<Expected>,
    /// What the client gets; none: anything.
    pub(super) expect_response: Option<Expected>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    config: Option<PluginConfig>,
    endpoints: Vec<Spanned<WrittenEndpoint>>,
    picks: Vec<Spanned<WrittenPicks>>,
    requests: Vec<Spanned<WrittenSeen>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEndpoint {
    #[serde(deserialize_with = "registry::file::address")]
    address: SocketAddr,
    #[serde(default = "one", deserialize_with = "registry::file::weight")]
    weight: u16,
    #[serde(default)]
    zone: Arc<str>,
    #[serde(default)]
    labels: BTreeMap<Arc<str>, Arc<str>>,
    #[serde(default, deserialize_with = "inflight")]
    inflight: u32,
    #[serde(default)]
    latency: Option<Time>,
}

fn one() -> u16 {
    1
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenRequest {
    method: Option<MethodName>,
    path: Option<PathText>,
    headers: BTreeMap<HeaderName, Text>,
    client: Option<Client>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenPicks {
    request: WrittenRequest,
    #[serde(deserialize_with = "times")]
    times: Option<u32>,
    tried: Vec<Spanned<String>>,
    expect: Option<Spanned<String>>,
    shares: BTreeMap<String, Share>,
    tolerance: Option<Share>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenSeen {
    method: Option<MethodName>,
    path: Option<PathText>,
    headers: BTreeMap<HeaderName, Text>,
    client: Option<Client>,
    body: String,
    response: WrittenResponse,
    expect: Option<Spanned<WrittenExpected>>,
    expect_response: Option<Spanned<WrittenExpected>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenResponse {
    status: Option<Status>,
    headers: BTreeMap<HeaderName, Text>,
    body: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenExpected {
    status: Option<Status>,
    method: Option<MethodName>,
    path: Option<String>,
    headers: BTreeMap<HeaderName, String>,
    absent: Vec<HeaderName>,
    body: Option<String>,
}

/// A path with its query.
#[derive(Debug)]
struct PathText(String);

impl FromStr for PathText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Target::sendable(text.to_owned()) {
            Some(_) => Ok(PathText(text.to_owned())),
            None => Err(format!("{text:?} is not a path like \"/shop?id=1\", without spaces and with all else as %20")),
        }
    }
}

/// The value of a field.
#[derive(Debug)]
struct Text(String);

impl FromStr for Text {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match is_value(text.as_bytes()) {
            true => Ok(Text(text.to_owned())),
            false => Err(format!("{text:?} cannot be the value of a header: no line breaks, no space around it")),
        }
    }
}

/// The address of a client.
#[derive(Debug)]
struct Client(IpAddr);

impl FromStr for Client {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Client).map_err(|_| format!("{text:?} is not an IP address like 192.0.2.1, without a port"))
    }
}

values::read_as_string! {
    PathText: "a path like \"/shop\"",
    Text: "the value of a header",
    Client: "an IP address like \"192.0.2.1\"",
}

/// 200 to 599.
#[derive(Clone, Copy, Debug)]
struct Status(StatusCode);

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(from)?;
        let status = u16::try_from(number).ok().filter(|it| (200..600).contains(it));
        let status = status.and_then(|it| StatusCode::from_u16(it).ok());
        status.map(Status).ok_or_else(|| D::Error::custom(format!("{number} is not a status from 200 to 599")))
    }
}

fn times<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    within(from, 1, MOST_TIMES).map(Some)
}

fn inflight<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    within(from, 0, MOST_INFLIGHT)
}

fn within<'de, D: Deserializer<'de>>(from: D, least: u32, most: u32) -> Result<u32, D::Error> {
    let number = i64::deserialize(from)?;
    let fits = u32::try_from(number).ok().filter(|it| (least..=most).contains(it));
    fits.ok_or_else(|| D::Error::custom(format!("{number} is not a number from {least} to {most}")))
}

/// Reads a scenario.
///
/// # Errors
/// Every mistake in it, with its line.
pub(super) fn load(path: &Path) -> Result<Scenario, Mistakes> {
    let text = fs::read_to_string(path).map_err(|error| Mistakes::unreadable(path, &error))?;
    parse(&text, path)
}

/// The scenario that `text` is, were it in the file `path`.
fn parse(text: &str, path: &Path) -> Result<Scenario, Mistakes> {
    let mistakes = |all| Mistakes { file: path.to_owned(), all };
    let document = Document::parse(text).map_err(mistakes)?;
    let (written, all) = document.read::<Written>();
    let (Some(written), true) = (written, all.is_empty()) else { return Err(mistakes(all)) };
    let mut reader = Reader { document, endpoints: Vec::new(), all };
    for endpoint in written.endpoints {
        reader.endpoint(endpoint);
    }
    reader.endpoints.sort_by_key(|it| it.spec.address);
    let picks: Vec<Picks> = written.picks.into_iter().filter_map(|it| reader.picks(it)).collect();
    let requests = written.requests.into_iter().map(|it| reader.seen(it)).collect();
    let Reader { endpoints, all, .. } = reader;
    match all.is_empty() {
        true => {
            Ok(Scenario { path: path.to_owned(), config: written.config.map(|it| it.0), endpoints, picks, requests })
        }
        false => Err(mistakes(all)),
    }
}

/// What makes a scenario of what is written.
struct Reader<'a> {
    document: Document<'a>,
    endpoints: Vec<Known>,
    all: Vec<Mistake>,
}

impl Reader<'_> {
    fn endpoint(&mut self, written: Spanned<WrittenEndpoint>) {
        let at = written.span();
        let WrittenEndpoint { address, weight, zone, labels, inflight, latency } = written.into_inner();
        if self.endpoints.iter().any(|it| it.spec.address == address) {
            self.wrong(&at, format!("\"{address}\" is an endpoint already"));
            return;
        }
        let (scheme, labels) = (registry::Scheme::Http, labels.into_iter().collect());
        self.endpoints.push(Known {
            spec: registry::Endpoint { address, scheme, weight, zone, labels },
            inflight,
            latency,
        });
    }

    fn picks(&mut self, written: Spanned<WrittenPicks>) -> Option<Picks> {
        let at = written.span();
        let WrittenPicks { request, times, tried, expect, shares, tolerance } = written.into_inner();
        let tried: Vec<u32> = tried.iter().filter_map(|it| self.index(it.get_ref(), &it.span())).collect();
        let many = expect.is_none();
        let wanted = match expect {
            Some(_) if !shares.is_empty() => {
                self.wrong(&at, "\"expect\" and \"shares\" are both there, and only one of them can be meant".into());
                return None;
            }
            Some(expect) if expect.get_ref() == "none" => Wanted::Always(None),
            Some(expect) => Wanted::Always(Some(self.index(expect.get_ref(), &expect.span())?)),
            None if shares.is_empty() => {
                self.wrong(&at, "missing key \"expect\" or \"shares\"".into());
                return None;
            }
            None => {
                let at = self.document.value_of(&at, "shares").unwrap_or_else(|| at.clone());
                let share = |(address, share): (String, Share)| Some((self.index(&address, &at)?, share.0));
                Wanted::Shares(shares.into_iter().filter_map(share).collect(), tolerance.map_or(20_000, |it| it.0))
            }
        };
        let times = times.unwrap_or(if many { TIMES } else { 1 });
        let WrittenRequest { method, path, headers, client } = request;
        let sent = sent(method, path, headers, client);
        Some(Picks { line: self.document.line(&at), sent, times, tried, wanted })
    }

    fn seen(&mut self, written: Spanned<WrittenSeen>) -> Seen {
        let line = self.document.line(&written.span());
        let WrittenSeen { method, path, headers, client, body, response, expect, expect_response } =
            written.into_inner();
        let mut sent = sent(method, path, headers, client);
        sent.body = pieces(body);
        let mut came = Came::new(response.status.map_or(StatusCode::OK, |it| it.0));
        fill(&mut came.head.fields, response.headers);
        came.body = pieces(response.body);
        if let Some(expect) = &expect {
            let it = expect.get_ref();
            if it.status.is_some() && (it.method.is_some() || it.path.is_some()) {
                let told = "with \"status\" the filter is to answer, and an answer has no \"method\" and no \"path\"";
                self.wrong(&expect.span(), told.into());
            }
        }
        if let Some(expect) = &expect_response {
            let it = expect.get_ref();
            if it.method.is_some() || it.path.is_some() {
                self.wrong(&expect.span(), "a response has no \"method\" and no \"path\"".into());
            }
        }
        let [expect, expect_response] = [expect, expect_response].map(|it| it.map(|it| expected(it.into_inner())));
        Seen { line, sent, came, expect, expect_response }
    }

    /// The place of an endpoint in the list.
    fn index(&mut self, address: &str, at: &Range<usize>) -> Option<u32> {
        let found = self.endpoints.iter().position(|it| it.spec.address.to_string() == address);
        if found.is_none() {
            self.wrong(at, format!("{address:?} is not among the endpoints of this file"));
        }
        found.map(|it| it as u32)
    }

    fn wrong(&mut self, at: &Range<usize>, message: String) {
        self.all.push(self.document.mistake_at(at, message));
    }
}

fn sent(
    method: Option<MethodName>,
    path: Option<PathText>,
    headers: BTreeMap<HeaderName, Text>,
    client: Option<Client>,
) -> Sent {
    let mut sent = Sent::new(method.map_or(Method::GET, |it| it.0), path.as_ref().map_or("/", |it| &it.0));
    sent.client = client.map_or(CLIENT, |it| it.0);
    fill(&mut sent.head.fields, headers);
    sent
}

fn fill(fields: &mut Fields, headers: BTreeMap<HeaderName, Text>) {
    headers.iter().for_each(|(name, value)| fields.set(&*name.0, value.0.as_bytes()));
}

fn pieces(body: String) -> Vec<Vec<u8>> {
    if body.is_empty() { Vec::new() } else { vec![body.into_bytes()] }
}

fn expected(written: WrittenExpected) -> Expected {
    let WrittenExpected { status, method, path, headers, absent, body } = written;
    Expected {
        status: status.map(|it| it.0),
        method: method.map(|it| it.0),
        path,
        headers: headers.into_iter().map(|(name, value)| (name.0, value)).collect(),
        absent: absent.into_iter().map(|name| name.0).collect(),
        body,
    }
}

impl Scenario {
    /// Whether there is something in it for a plugin of these kinds.
    ///
    /// # Errors
    /// If not, or if something is for another kind.
    pub(super) fn suits(&self, kinds: Kinds) -> Result<()> {
        let path = self.path.display();
        if !self.picks.is_empty() && !kinds.balancer {
            bail!("{path}: [[picks]] are for balancers, and the plugin is a {kinds}: write [[requests]]");
        }
        if !self.requests.is_empty() && !kinds.filters() {
            bail!("{path}: [[requests]] are for filters, and the plugin is a {kinds}: write [[picks]]");
        }
        if self.picks.is_empty() && self.requests.is_empty() {
            bail!("{path}: nothing is expected: write [[picks]] for a balancer, [[requests]] for a filter");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BALANCER: &str = r#"
        config = { by = "latency", at = 1979-05-27 }
        endpoints = [
            { address = "10.0.0.2:80", weight = 3, inflight = 4, latency = "20ms" },
            { address = "10.0.0.1:80", zone = "a", labels = { version = "2" } },
        ]
        [[picks]]
        request = { method = "POST", path = "/cart?id=1", headers = { cookie = "id=7" }, client = "192.0.2.9" }
        tried = ["10.0.0.2:80"]
        expect = "10.0.0.1:80"
        [[picks]]
        shares = { "10.0.0.1:80" = "25%", "10.0.0.2:80" = "75%" }
        tolerance = "1.5%"
        [[picks]]
        times = 3
        expect = "none"
    "#;

    #[test]
    fn picks_are_read_with_their_defaults() {
        let scenario = parse(BALANCER, Path::new("it.toml")).unwrap();
        assert_eq!(scenario.config.as_deref(), Some(r#"{"at":"1979-05-27","by":"latency"}"#));
        let [first, second] = &scenario.endpoints[..] else { panic!("two") };
        assert_eq!(first.spec.address.to_string(), "10.0.0.1:80", "ordered as the gateway orders them");
        assert_eq!((&*first.spec.zone, first.spec.labels.len(), first.inflight), ("a", 1, 0));
        assert_eq!((second.spec.weight, second.inflight), (3, 4));
        let [one, shares, none] = &scenario.picks[..] else { panic!("three") };
        assert_eq!((one.times, &one.tried[..], &one.wanted), (1, &[1][..], &Wanted::Always(Some(0))));
        assert_eq!(one.sent.head.target.as_str(), "/cart?id=1");
        assert_eq!(one.sent.head.fields.get("cookie"), Some(&b"id=7"[..]));
        assert_eq!(one.sent.client.to_string(), "192.0.2.9");
        assert_eq!((shares.times, &shares.wanted), (TIMES, &Wanted::Shares(vec![(0, 250_000), (1, 750_000)], 15_000)));
        assert_eq!((none.line, none.times, &none.wanted), (14, 3, &Wanted::Always(None)));
        let (balancer, filter) =
            (Kinds { balancer: true, ..Kinds::default() }, Kinds { request_filter: true, ..Kinds::default() });
        assert!(scenario.suits(balancer).is_ok());
        let told = scenario.suits(filter).unwrap_err().to_string();
        assert!(told.contains("[[picks]] are for balancers, and the plugin is a filter"), "{told}");
        assert!(parse("", Path::new("it.toml")).unwrap().suits(filter).is_err());
    }

    #[test]
    fn requests_are_read_with_their_defaults() {
        let text = r#"
            [[requests]]
            path = "/a"
            headers = { X-One = "1", host = "b.example" }
            body = "text"
            response = { status = 404, body = "no" }
            expect = { path = "/b", headers = { x-two = "2" }, absent = ["X-One"] }
            expect_response = { status = 200 }
            [[requests]]
        "#;
        let scenario = parse(text, Path::new("it.toml")).unwrap();
        let [first, second] = &scenario.requests[..] else { panic!("two") };
        assert_eq!(first.sent.head.fields.text("host"), Some("b.example"));
        assert_eq!((first.sent.body.concat(), first.came.head.status.as_u16()), (b"text".to_vec(), 404));
        let expect = first.expect.as_ref().unwrap();
        assert_eq!((expect.path.as_deref(), &expect.absent[..]), (Some("/b"), &["x-one".to_owned()][..]));
        assert_eq!(second.sent.head.target.as_str(), "/");
        assert!(second.expect.is_none() && second.sent.body.is_empty() && second.came.head.status == 200);
    }

    #[test]
    fn what_the_documentation_shows_can_be_read() {
        let page = include_str!("../../../docs/plugins.md");
        let blocks = page.split("```toml\n").skip(1).filter_map(|it| it.split("```").next());
        let scenarios: Vec<&str> =
            blocks.filter(|it| it.contains("[[picks]]") || it.contains("[[requests]]")).collect();
        assert_eq!(scenarios.len(), 2);
        for text in scenarios {
            let scenario = parse(text, Path::new("docs")).unwrap_or_else(|mistakes| panic!("{mistakes}"));
            assert!(scenario.picks.len() + scenario.requests.len() > 0);
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        for (text, line, words) in [
            ("confg = {}", 1, "did you mean \"config\"?"),
            ("endpoints = [{ address = \"a\" }]", 1, "not an address like"),
            ("endpoints = [{ weight = 2 }]", 1, "missing key \"address\""),
            ("endpoints = [\n{ address = \"1.1.1.1:1\" },\n{ address = \"1.1.1.1:1\" }]", 3, "is an endpoint already"),
            ("endpoints = [{ address = \"1.1.1.1:1\", inflight = 10001 }]", 1, "not a number from 0 to 10000"),
            ("[[picks]]\ntimes = 0\nexpect = \"none\"", 2, "not a number from 1 to 1000000"),
            ("[[picks]]\ntimes = 2", 1, "missing key \"expect\" or \"shares\""),
            ("[[picks]]\nexpect = \"1.1.1.1:1\"", 2, "not among the endpoints"),
            ("[[picks]]\nexpect = \"none\"\ntried = [\"x\"]", 3, "\"x\" is not among the endpoints"),
            ("[[picks]]\nshares = { \"1.1.1.1:1\" = \"5\" }", 2, "not a share"),
            ("[[picks]]\nexpect = \"none\"\nrequest = { path = \"a b\" }", 3, "not a path like"),
            ("[[requests]]\nclient = \"localhost\"", 2, "not an IP address"),
            ("[[requests]]\nmethod = \"get\"", 2, "not a method"),
            ("[[requests]]\nheaders = { a = \"b\\n\" }", 2, "value of a header"),
            ("[[requests]]\nresponse = { status = 99 }", 2, "not a status"),
            ("[[requests]]\nexpect = { status = 403, path = \"/\" }", 2, "an answer has no"),
            ("[[requests]]\nexpect_response = { path = \"/\" }", 2, "a response has no"),
        ] {
            let told = parse(text, Path::new("it.toml")).err().unwrap_or_else(|| panic!("{text} has no mistake"));
            let place = told.all[0].place.as_ref().map(|it| it.line);
            assert!(told.to_string().contains(words) && place == Some(line), "{text}: {told}");
        }
        let twice = "endpoints = [{ address = \"1.1.1.1:1\" }]\n[[picks]]\nexpect = \"none\"\nshares = { \"1.1.1.1:1\" = \"5%\" }";
        let told = parse(twice, Path::new("it.toml")).unwrap_err().to_string();
        assert!(told.starts_with("it.toml:2:") && told.contains("only one of them can be meant"), "{told}");
    }
}
