//! The values of a configuration, each checked where it is read, so that a mistake points at its line and column.
//!
//! A type here says what may be written, to whoever reads it and, by its schema, to tools; what the fields mean and what
//! they default to is in [`super`].

use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

/// The longest time that may be written: beyond it a sum with the clock could overflow, and nobody means it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Below 1 ms the epoch ticker cannot tell; a minute is longer than any request waits.
const CALL_TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
/// More tries only multiply the load on endpoints that are failing already.
const MOST_RETRIES: i64 = 10;
/// Checks that follow each other faster would be load, and a day is longer than anybody waits for one.
const CHECK_INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);
/// Far beyond the cores of any machine; a typing error must not start a million threads.
const MOST_WORKERS: i64 = 1024;

/// A type that is read from a string. By a visitor, because only what fails inside one is placed at the value itself, also
/// within a list.
macro_rules! read_as_string {
    ($($name:ident: $expected:literal),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Written;

                impl serde::de::Visitor<'_> for Written {
                    type Value = $name;

                    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        out.write_str($expected)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                from.deserialize_str(Written)
            }
        }
    )*};
}

pub(crate) use read_as_string;

/// The same, which is written again as its `Display` has it, and tells schemas what it is.
macro_rules! written_as_string {
    ($($name:ident: $expected:literal),* $(,)?) => {
        $crate::config::values::read_as_string! { $($name: $expected),* }
        $(
            impl serde::Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                    to.collect_str(self)
                }
            }

            impl schemars::JsonSchema for $name {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> std::borrow::Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                    schemars::json_schema!({ "type": "string", "title": $expected })
                }
            }
        )*
    };
}

pub(crate) use written_as_string;

/// How values are written again.
macro_rules! displayed {
    ($($name:ident: $text:expr),* $(,)?) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let text: fn(&Self, &mut std::fmt::Formatter<'_>) -> std::fmt::Result = $text;
                text(self, out)
            }
        }
    )*};
}

pub(crate) use displayed;

displayed! {
    Time: |it, out| write!(out, "{}", humantime::format_duration(it.0)),
    Retention: |it, out| write!(out, "{}", humantime::format_duration(it.0)),
    Percent: |it, out| write!(out, "{}%", it.0),
    PathPrefix: |it, out| out.write_str(&it.0),
    PluginName: |it, out| out.write_str(&it.0),
    ServiceName: |it, out| out.write_str(&it.0),
    HostName: |it, out| out.write_str(&it.0),
    HeaderName: |it, out| out.write_str(&it.0),
    MethodName: |it, out| out.write_str(it.0.as_str()),
    Servers: |it, out| out.write_str(&it.0),
    ZnodePath: |it, out| out.write_str(&it.0),
    Address: |it, out| write!(out, "{}", it.0),
}

written_as_string! {
    Time: "a time like \"10s\"",
    Retention: "a time like \"10m\", or \"0s\"",
    Percent: "a share like \"20%\"",
    PathPrefix: "a path like \"/shop\"",
    PluginName: "a plugin's name",
    ServiceName: "a service's name",
    HostName: "a host like \"example.com\"",
    HeaderName: "a header's name",
    MethodName: "a method like \"GET\"",
    Servers: "servers like \"a:2181,b:2181/chroot\"",
    ZnodePath: "a path like \"/services\"",
    Address: "an address like \"127.0.0.1:8080\"",
}

/// A length of time, longer than zero: `"10s"`, `"250ms"`, `"1m 30s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match duration(text)? {
            Duration::ZERO => Err(format!("{text:?} is no time at all; write one like \"10s\"")),
            time => Ok(Time(time)),
        }
    }
}

/// How long something is kept; zero: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention(pub Duration);

impl FromStr for Retention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        duration(text).map(Retention)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let time =
        humantime::parse_duration(text).map_err(|_| format!("{text:?} is not a time like \"10s\" or \"250ms\""))?;
    if time > LONGEST { Err(format!("{text:?} is longer than a year")) } else { Ok(time) }
}

/// A [`Time`] that may be zero.
pub(super) fn time_or_zero<'de, D: Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
    duration(&String::deserialize(from)?).map(Time).map_err(D::Error::custom)
}

/// [`time_or_zero`] where it is optional.
pub(super) fn some_time_or_zero<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Time>, D::Error> {
    time_or_zero(from).map(Some)
}

/// A [`Time`] between two health checks, where it is optional.
pub(super) fn some_check_interval<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Time>, D::Error> {
    let time = Time::deserialize(from)?;
    if CHECK_INTERVAL.contains(&time.0) {
        return Ok(Some(time));
    }
    let written = humantime::format_duration(time.0);
    Err(D::Error::custom(format!("\"{written}\" is not between 10ms and 1day")))
}

/// A [`Time`] that a plugin's call may take.
pub(super) fn call_timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
    let text = String::deserialize(from)?;
    let time: Time = text.parse().map_err(D::Error::custom)?;
    if CALL_TIMEOUT.contains(&time.0) {
        Ok(time)
    } else {
        Err(D::Error::custom(format!("{text:?} is not between 1ms and 60s")))
    }
}

/// A share of a whole: `"20%"`, from 0 to 100, without a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u32);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').and_then(|it| it.trim_end().parse().ok()).filter(|it| *it <= 100);
        number.map(Percent).ok_or_else(|| format!("{text:?} is not a share from \"0%\" to \"100%\""))
    }
}

/// A number from the one to the other.
pub(super) fn between<'de, const LEAST: u32, const MOST: u32, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = i64::deserialize(from)?;
    let good = u32::try_from(number).ok().filter(|it| (LEAST..=MOST).contains(it));
    good.ok_or_else(|| D::Error::custom(format!("{number} is not a number from {LEAST} to {MOST}")))
}

/// Whole path segments from the start: `/` or `/shop/cart`, never with a `/` at the end otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPrefix(Arc<str>);

impl PathPrefix {
    /// The prefix of every path.
    pub fn root() -> PathPrefix {
        PathPrefix("/".into())
    }

    /// As it is matched: `/`, or without a `/` at the end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PathPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("{text:?} {why}"));
        let Some(inside) = text.strip_prefix('/') else { return wrong("does not start with \"/\"") };
        if let Some(bad) = text.chars().find(|it| !it.is_ascii_graphic() || "\"<>\\^`{|}".contains(*it)) {
            return wrong(&format!("contains {bad:?}, which a path can only have percent-encoded"));
        }
        if let Some(bad) = text.chars().find(|it| matches!(it, '?' | '#')) {
            return wrong(&format!("contains {bad:?}, which ends a path"));
        }
        let inside = match settled(inside) {
            Ok(settled) => settled,
            Err(why) => return wrong(why),
        };
        let inside = inside.strip_suffix('/').unwrap_or(&inside);
        if inside.is_empty() {
            // "//" ends here too: its one inner segment is empty.
            return if text == "/" { Ok(PathPrefix::root()) } else { wrong("contains \"//\"") };
        }
        for segment in inside.split('/') {
            match segment.split(';').next().unwrap_or_default() {
                "" if segment.is_empty() => return wrong("contains \"//\""),
                "." | ".." => return wrong(&format!("contains the segment {segment:?}, which no request has left")),
                _ => {}
            }
        }
        Ok(PathPrefix(format!("/{inside}").into()))
    }
}

/// What the path policy makes of percent-encoding in requests, so that a prefix written otherwise matches all the same:
/// unreserved characters are decoded, the digits of the others in upper case (RFC 3986, section 6.2.2).
fn settled(path: &str) -> Result<String, &'static str> {
    let mut pieces = path.split('%');
    let mut settled = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let digits = piece.get(..2).filter(|it| it.bytes().all(|it| it.is_ascii_hexdigit()));
        let code = digits.and_then(|it| u8::from_str_radix(it, 16).ok());
        match code.ok_or("contains \"%\" without two hexadecimal digits")? {
            0 => return Err("contains \"%00\", which no request has left"),
            code if code.is_ascii_alphanumeric() || b"-._~".contains(&code) => settled.push(char::from(code)),
            code => settled.push_str(&format!("%{code:02X}")),
        }
        settled.push_str(&piece[2..]);
    }
    Ok(settled)
}

/// The name of a plugin: what its file is called without `.wasm`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginName(pub Arc<str>);

impl FromStr for PluginName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
        if text.is_empty() || text.starts_with('.') || !text.chars().all(allowed) {
            return Err(format!(
                "{text:?} is not a plugin's name: letters, digits, \"-\", \"_\" and \".\", not starting with \".\""
            ));
        }
        Ok(PluginName(text.into()))
    }
}

/// The name of a service, as its registry has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(pub Arc<str>);

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('/') {
            return Err(format!("{text:?} is not a service's name: at least one character, no \"/\""));
        }
        Ok(ServiceName(text.into()))
    }
}

/// A host without a port, in lower case, without the dot that ends a complete name, and an IPv6 address in the one form
/// of RFC 5952; `*.example.com` stands for every name below `example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(pub Arc<str>);

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        if let Some(address) = ipv6(&lower) {
            return Ok(HostName(format!("[{address}]").into()));
        }
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        if is_host(name.strip_prefix("*.").unwrap_or(name)) {
            return Ok(HostName(name.into()));
        }
        let port = text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok());
        Err(if port {
            format!("{text:?} has a port; a host is matched without one")
        } else {
            format!("{text:?} is not a host like \"example.com\" or \"*.example.com\"")
        })
    }
}

/// An IPv6 address in brackets.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Whether it is a DNS name, an IPv4 address or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    if text.starts_with('[') {
        return ipv6(text).is_some();
    }
    // 253 and 63 are the limits of DNS. An underscore is not a host's by the book, but containers have it.
    let label = |it: &str| {
        (1..=63).contains(&it.len()) && it.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The name of a header, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderName(pub String);

impl FromStr for HeaderName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = http::HeaderName::from_str(text).map_err(|_| format!("{text:?} is not a header's name"))?;
        Ok(HeaderName(name.as_str().to_owned()))
    }
}

/// A request's method.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MethodName(pub http::Method);

impl FromStr for MethodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Methods are told apart by case, so "get" would match nothing that a client sends.
        let method = http::Method::from_str(text).ok().filter(|_| !text.contains(|it: char| it.is_ascii_lowercase()));
        method.map(MethodName).ok_or_else(|| format!("{text:?} is not a method like \"GET\""))
    }
}

/// A ZooKeeper ensemble: `host:port,host:port/chroot`; the port is 2181 where none is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers(pub String);

impl FromStr for Servers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (hosts, chroot) = text.find('/').map_or((text, None), |at| (&text[..at], Some(&text[at..])));
        for server in hosts.split(',') {
            let (host, port) = match server.rsplit_once(':') {
                // The colon is the address's own.
                Some(_) if server.ends_with(']') => (server, None),
                Some((host, port)) => (host, Some(port)),
                None => (server, None),
            };
            if !is_host(host) {
                return Err(format!("{text:?}: {server:?} is not a server like \"127.0.0.1:2181\""));
            }
            if port.is_some_and(|port| !matches!(port.parse::<u16>(), Ok(1..))) {
                return Err(format!("{text:?}: the port of {server:?} is not a number from 1 to 65535"));
            }
        }
        if let Some(chroot) = chroot.filter(|it| *it != "/") {
            chroot.parse::<ZnodePath>().map_err(|error| format!("{text:?}: {error}"))?;
        }
        Ok(Servers(text.to_owned()))
    }
}

/// An absolute path in ZooKeeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZnodePath(pub String);

impl FromStr for ZnodePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = |it: &str| !matches!(it, "" | "." | "..") && !it.chars().any(char::is_control);
        match text.strip_prefix('/') {
            Some("") => Ok(ZnodePath(text.to_owned())),
            Some(inside) if inside.split('/').all(good) => Ok(ZnodePath(text.to_owned())),
            _ => Err(format!("{text:?} is not a znode's path like \"/services\"")),
        }
    }
}

/// An address to listen on.
pub(crate) struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Address).map_err(|_| format!("{text:?} is not an address like 127.0.0.1:8080"))
    }
}

/// A [`SocketAddr`] of a flag or a variable.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse::<Address>().map(|it| it.0)
}

/// A [`SocketAddr`] with our words for a bad one.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    Address::deserialize(from).map(|it| it.0)
}

fn at_most<'de, D: Deserializer<'de>>(from: D, most: i64) -> Result<u32, D::Error> {
    let number = i64::deserialize(from)?;
    match u32::try_from(number) {
        Ok(good) if number <= most => Ok(good),
        _ => Err(D::Error::custom(format!("{number} is not a number from 0 to {most}"))),
    }
}

/// How often to try again.
pub(super) fn retries<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    at_most(from, MOST_RETRIES)
}

/// [`retries`] where they are optional.
pub(super) fn some_retries<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    retries(from).map(Some)
}

/// How many threads.
pub(super) fn workers<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    at_most(from, MOST_WORKERS).map(|it| it as usize)
}

/// [`workers`] of a flag or a variable.
pub fn parse_workers(text: &str) -> Result<usize, String> {
    let good = text.parse::<usize>().ok().filter(|it| *it <= MOST_WORKERS as usize);
    good.ok_or_else(|| format!("{text:?} is not a number from 0 to {MOST_WORKERS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_the_form_that_requests_have() {
        for (text, form) in [
            ("/", "/"),
            ("/shop/", "/shop"),
            ("/%41%7e", "/A~"),
            ("/caf%c3%a9/x", "/caf%C3%A9/x"),
            ("/a%2fb", "/a%2Fb"),
            ("/a;b", "/a;b"),
            ("/;", "/;"),
        ] {
            assert_eq!(text.parse::<PathPrefix>().map(|it| it.as_str().to_owned()), Ok(form.to_owned()), "{text}");
        }
        for text in
            ["", "a", "//", "/a//b", "/%2e%2E/b", "/..;x/b", "/%", "/%4", "/%+1", "/%00", "/a b", "/a?b", "/\u{e9}"]
        {
            assert!(text.parse::<PathPrefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_have_the_form_that_requests_have() {
        for (text, form) in [
            ("A.Test.", "a.test"),
            ("*.A.test.", "*.a.test"),
            ("127.0.0.1", "127.0.0.1"),
            ("[2001:DB8:0::1]", "[2001:db8::1]"),
            ("a_b", "a_b"),
        ] {
            assert_eq!(text.parse::<HostName>().map(|it| it.0.to_string()), Ok(form.to_owned()), "{text}");
        }
        for text in ["", ".", "a..", "a.test:80", "[::1]:80", "[::g]", "a b", "*"] {
            assert!(text.parse::<HostName>().is_err(), "{text}");
        }
    }
}
