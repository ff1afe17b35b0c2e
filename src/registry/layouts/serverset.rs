//! What Finagle and Aurora write: `<service>/member_<number>` with the body `{serviceEndpoint: {host, port},
//! additionalEndpoints: {<name>: {host, port}}, status, shard, metadata}`, and beside them `vector_<number>` with the body
//! `{vector: [{select, weight, priority}]}`, which gives weights to members.
//!
//! The endpoint of a member is its `serviceEndpoint`; the others are labels. The weight of a member is the product of the
//! weights of all selectors that fit it, times [`SCALE`].

use super::found::{Found, Host, Object, Value, port, string, text, texts};
use super::{Read, Reason, Znode};
use crate::config::Layout;
use crate::registry::Scheme;

/// The weight of a member to which no vector gives another: fractions down to a hundredth are kept.
pub(super) const SCALE: u16 = 100;

const MEMBER: &str = "member_";
const VECTOR: &str = "vector_";

/// Whether a znode of this name may be one of these.
pub(super) fn is_named(child: &str) -> bool {
    child.starts_with(MEMBER) || child.starts_with(VECTOR)
}

/// Whether a body looks like one of these.
pub(super) fn fits(body: &Object<'_>) -> bool {
    body.get("serviceEndpoint").is_some_and(Value::is_object) || body.get("vector").is_some_and(Value::is_array)
}

/// A weight for the members that it selects.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    select: Select,
    weight: f64,
}

#[derive(Clone, Debug, PartialEq)]
enum Select {
    /// Host and port, as they are written.
    Inet(String, u16),
    Member(String),
    Shard(i64),
}

pub(super) fn read(child: &str, body: Option<&Object<'_>>) -> Result<Znode, Reason> {
    let body = body.ok_or(Reason::Body)?;
    if let Some(vector) = body.get("vector").filter(|_| child.starts_with(VECTOR)) {
        let rules = vector.as_array().ok_or(Reason::Body)?;
        // A selector of a kind that we do not know selects nothing, as in Finagle.
        return Ok(Znode::Vector(rules.iter().filter_map(rule).collect()));
    }
    let place = body.get("serviceEndpoint").and_then(Value::as_object).ok_or(Reason::NoAddress)?;
    // Finagle uses members that are alive, and takes one that does not say so for unknown.
    if !string(body, "status").eq_ignore_ascii_case("ALIVE") {
        return Ok(Znode::Out);
    }
    let (host, port) = host_and_port(place).ok_or(Reason::NoAddress)?;
    let mut labels = texts(body, "metadata");
    if let Some(shard) = body.get("shard").filter(|shard| !shard.is_null()) {
        labels.set("shard", text(shard));
    }
    let mut scheme = None;
    for (name, other) in body.get("additionalEndpoints").and_then(Value::as_object).into_iter().flat_map(Object::iter) {
        let Some(other) = other.as_object().and_then(host_and_port) else { continue };
        if name == "https" && other == (host, port) {
            scheme = Some(Scheme::Https);
        }
        let (host, port) = other;
        labels.set(format!("endpoint.{name}"), format!("{host}:{port}"));
    }
    // Selectors have the host as it is written here.
    if host != string(place, "host") {
        labels.set("host", string(place, "host").to_ascii_lowercase());
    }
    // Only vectors give weights.
    if let Some(weight) = labels.take("weight") {
        labels.set("metadata.weight", weight);
    }
    Found { host: Host::Written(host), port, scheme, labels }.read(Layout::Serverset)
}

/// Where a host has a name, the library may have looked its address up already.
fn host_and_port<'a>(place: &'a Object<'_>) -> Option<(&'a str, u64)> {
    let host = ["inet", "inet6", "host"].iter().find_map(|field| place.get(field)?.as_str())?;
    Some((host, port(place.get("port"))?))
}

fn rule(written: &Value<'_>) -> Option<Rule> {
    let written = written.as_object()?;
    let (kind, which) = written.get("select")?.as_str()?.split_once('=')?;
    let select = match kind {
        "inet" => {
            let (host, port) = which.rsplit_once(':')?;
            Select::Inet(host.to_ascii_lowercase(), port.parse().ok()?)
        }
        "member" => Select::Member(which.to_owned()),
        "shard" => Select::Shard(which.parse().ok()?),
        _ => return None,
    };
    Some(Rule { select, weight: written.get("weight").and_then(Value::as_f64).unwrap_or(1.0) })
}

impl Rule {
    fn fits(&self, child: &str, read: &Read) -> bool {
        match &self.select {
            Select::Member(name) => name == child,
            Select::Shard(shard) => label(read, "shard").is_some_and(|value| value.parse() == Ok(*shard)),
            Select::Inet(host, port) => {
                let address = read.endpoint.address;
                let ip = host.trim_start_matches('[').trim_end_matches(']').parse();
                (ip == Ok(address.ip()) || label(read, "host") == Some(host.as_str())) && *port == address.port()
            }
        }
    }
}

fn label<'a>(read: &'a Read, name: &str) -> Option<&'a str> {
    read.endpoint.labels.iter().find(|(known, _)| &**known == name).map(|(_, value)| &**value)
}

/// The weight of the member `child`; none: it is out, because a rule gives it zero or less, as -1 is written for.
pub(super) fn weight<'a>(child: &str, read: &Read, rules: impl Iterator<Item = &'a Rule>) -> Option<u16> {
    let product = rules
        .filter(|rule| rule.fits(child, read))
        .try_fold(1.0, |product, rule| (rule.weight > 0.0).then_some(product * rule.weight))?;
    // A little is not nothing, and more than the most is the most.
    Some((product * f64::from(SCALE)).round().clamp(1.0, f64::from(u16::MAX)) as u16)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{endpoint_of, labels, read_of, weights};
    use super::*;

    const MEMBER: &str = r#"{"status":"ALIVE","serviceEndpoint":{"host":"10.0.0.3","port":80},"additionalEndpoints":
        {"http":{"host":"10.0.0.3","port":8080}},"shard":0,"metadata":{"zone":"z","team":"a"}}"#;

    #[test]
    fn a_member_as_finagle_and_aurora_write_it() {
        let read = endpoint_of(Layout::Serverset, "member_0000000001", MEMBER);
        assert_eq!(read.address, "10.0.0.3:80".parse().unwrap());
        assert_eq!((read.weight, &*read.zone, read.scheme), (100, "z", Scheme::Http));
        assert_eq!(labels(&read), [("endpoint.http", "10.0.0.3:8080"), ("shard", "0"), ("team", "a")]);
        let https = MEMBER.replace("8080", "80").replace(r#""http""#, r#""https""#);
        assert_eq!(endpoint_of(Layout::Serverset, "member_0000000001", &https).scheme, Scheme::Https);
        let heavy = endpoint_of(Layout::Serverset, "member_1", &MEMBER.replace("team", "weight"));
        assert_eq!((heavy.weight, labels(&heavy)[1]), (100, ("metadata.weight", "a")));
    }

    #[test]
    fn only_members_that_are_alive_are_endpoints() {
        for status in ["DEAD", "STARTING", "STOPPING", "STOPPED", "WARNING", "UNKNOWN", ""] {
            let body = MEMBER.replace("ALIVE", status);
            assert_eq!(read_of(Layout::Serverset, "member_1", &body), Ok(Znode::Out), "{status}");
        }
    }

    #[test]
    fn a_bad_member_or_vector_is_refused() {
        for (child, body, reason) in [
            ("member_1", "", Reason::Body),
            ("member_1", r#"{"status":"ALIVE"}"#, Reason::NoAddress),
            ("member_1", r#"{"status":"ALIVE","serviceEndpoint":{"host":"10.0.0.1"}}"#, Reason::NoAddress),
            ("member_1", r#"{"vector":[]}"#, Reason::NoAddress),
            ("vector_1", r#"{"vector":7}"#, Reason::Body),
        ] {
            assert_eq!(read_of(Layout::Serverset, child, body), Err(reason), "{child} {body}");
        }
    }

    fn member(shard: u32, host: &str) -> String {
        format!(r#"{{"status":"ALIVE","serviceEndpoint":{{"host":"{host}","port":80}},"shard":{shard}}}"#)
    }

    fn weighed(rules: &str) -> Vec<u16> {
        let (a, b) = (member(0, "10.0.0.1"), member(1, "10.0.0.2"));
        let (vector, other) = (format!(r#"{{"vector":[{rules}]}}"#), r#"{"vector":[{"select":"shard=1","weight":2}]}"#);
        weights(
            Layout::Serverset,
            &[("member_a", &a), ("member_b", &b), ("vector_0", "garbage"), ("vector_1", &vector), ("vector_2", other)],
        )
    }

    #[test]
    fn an_address_saves_the_look_up_of_a_name() {
        let place = r#"{"host":"Web-1.test","port":80,"inet":"10.0.0.7"}"#;
        let member = format!(r#"{{"status":"ALIVE","serviceEndpoint":{place},"additionalEndpoints":{{}}}}"#);
        let read = endpoint_of(Layout::Serverset, "member_0", &member);
        assert_eq!(read.address, "10.0.0.7:80".parse().unwrap());
        assert_eq!(labels(&read), [("host", "web-1.test")]);
        for selected in ["web-1.test", "10.0.0.7"] {
            let vector = format!(r#"{{"vector":[{{"select":"inet={selected}:80","weight":0.5}}]}}"#);
            assert_eq!(weights(Layout::Serverset, &[("member_0", &member), ("vector_0", &vector)]), [50]);
        }
    }

    #[test]
    fn vectors_multiply() {
        assert_eq!(weighed(""), [100, 200]);
        assert_eq!(weighed(r#"{"select":"shard=0","weight":0.5,"priority":1}"#), [50, 200]);
        assert_eq!(weighed(r#"{"select":"member=member_b","weight":0.25}"#), [100, 50]);
        assert_eq!(
            weighed(r#"{"select":"inet=10.0.0.2:80","weight":0.1},{"select":"shard=1","weight":0.1}"#),
            [100, 2]
        );
        assert_eq!(weighed(r#"{"select":"inet=10.0.0.2:81","weight":0.1},{"select":"shard=1"}"#), [100, 200]);
    }

    #[test]
    fn weights_have_bounds() {
        for out in ["0", "-1.0", "-1"] {
            assert_eq!(weighed(&format!(r#"{{"select":"shard=0","weight":{out}}}"#)), [200], "{out}");
        }
        assert_eq!(weighed(r#"{"select":"shard=0","weight":1e-9}"#), [1, 200]);
        assert_eq!(weighed(r#"{"select":"shard=0","weight":1e9}"#), [65535, 200]);
        assert_eq!(weighed(r#"{"select":"shard=x","weight":0},7,{},{"select":"rack=1","weight":0}"#), [100, 200]);
    }
}
