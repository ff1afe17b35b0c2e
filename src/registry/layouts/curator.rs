//! What Curator's service discovery writes: `/services/<service>/<id>` with the body `{name, id, address, port, sslPort,
//! payload, registrationTimeUTC, serviceType, uriSpec, enabled}`.
//!
//! So do Spring Cloud ZooKeeper, whose payload has `metadata` with weight, zone and `instance_status`, and Dubbo 3 where
//! it registers applications. With an `sslPort` the endpoint is that port, with TLS, as Spring has it.

use super::found::{Found, Host, Labels, Object, Value, port, string, text, texts};
use super::{Reason, Znode};
use crate::config::Layout;
use crate::registry::Scheme;

/// Whether a body looks like one of these.
pub(super) fn fits(body: &Object<'_>) -> bool {
    body.get("address").is_some_and(Value::is_string) && (body.contains_key("port") || body.contains_key("sslPort"))
}

pub(super) fn read(body: Option<&Object<'_>>) -> Result<Znode, Reason> {
    let body = body.ok_or(Reason::Body)?;
    if body.get("enabled") == Some(&Value::Bool(false)) {
        return Ok(Znode::Out);
    }
    let mut labels = payload(body);
    // Spring takes whatever is not UP out of its lists.
    if labels.get("instance_status").is_some_and(|status| !status.eq_ignore_ascii_case("UP")) {
        return Ok(Znode::Out);
    }
    for (label, field) in [("id", "id"), ("type", "serviceType")] {
        let value = string(body, field);
        if !value.is_empty() {
            labels.add(label, value);
        }
    }
    let (secure, plain) = (port(body.get("sslPort")), port(body.get("port")));
    let host = Host::Written(string(body, "address"));
    let port = secure.or(plain).ok_or(Reason::NoAddress)?;
    Found { host, port, scheme: secure.map(|_| Scheme::Https), labels }.read(Layout::Curator)
}

/// What the application added: the metadata of Spring and Dubbo, else the members of an object, else a text.
fn payload<'a>(body: &'a Object<'_>) -> Labels<'a> {
    match body.get("payload") {
        Some(Value::Object(payload)) if payload.get("metadata").is_some_and(Value::is_object) => {
            texts(payload, "metadata")
        }
        Some(Value::Object(_)) => {
            let mut labels = texts(body, "payload");
            // The name of a Java class, which says nothing of the endpoint.
            labels.take("@class");
            labels
        }
        Some(Value::Null) | None => Labels::default(),
        Some(other) => Labels::from_iter([("payload".into(), text(other))]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{endpoint_of, labels, read_of};
    use super::*;
    use crate::registry::Endpoint;

    fn read(body: &str) -> Endpoint {
        endpoint_of(Layout::Curator, "d18c-uuid", body)
    }

    const SPRING: &str = r#"{"name":"app","id":"d18c","address":"10.1.1.1","port":8080,"sslPort":null,"payload":{
        "@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","id":"app-1","name":"app","metadata":
        {"instance_status":"UP","weight":"30","zone":"z1","team":"a"}},"registrationTimeUTC":1,"serviceType":"DYNAMIC",
        "uriSpec":{"parts":[{"value":"scheme","variable":true}]}}"#;

    #[test]
    fn spring() {
        let read = read(SPRING);
        assert_eq!(read.address, "10.1.1.1:8080".parse().unwrap());
        assert_eq!((read.weight, &*read.zone, read.scheme), (30, "z1", Scheme::Http));
        assert_eq!(labels(&read), [("id", "d18c"), ("instance_status", "UP"), ("team", "a"), ("type", "DYNAMIC")]);
    }

    #[test]
    fn a_port_with_tls_is_preferred() {
        for port in ["8080", "null"] {
            let read = read(&format!(r#"{{"address":"10.1.1.1","port":{port},"sslPort":8443}}"#));
            assert_eq!((read.address.port(), read.scheme, read.weight), (8443, Scheme::Https, 1));
        }
    }

    #[test]
    fn what_is_out_is_no_endpoint() {
        for (from, to) in [
            (r#""name":"app","id""#, r#""enabled":false,"name":"app","id""#),
            (r#""UP""#, r#""OUT_OF_SERVICE""#),
            (r#""UP""#, r#""DOWN""#),
        ] {
            assert_eq!(read_of(Layout::Curator, "x", &SPRING.replacen(from, to, 1)), Ok(Znode::Out), "{to}");
        }
        read(&SPRING.replace(r#""UP""#, r#""up""#));
        read(&SPRING.replacen(r#""name""#, r#""enabled":true,"name""#, 1));
    }

    #[test]
    fn payloads_of_any_kind() {
        let with = |payload: &str| read(&format!(r#"{{"address":"10.1.1.1","port":80,"payload":{payload}}}"#));
        assert_eq!(labels(&with("null")), []);
        assert_eq!(labels(&with(r#""text""#)), [("payload", "text")]);
        assert_eq!(labels(&with("[1,2]")), [("payload", "[1,2]")]);
        let own = with(r#"{"@class":"a.B","weight":7,"zone":null,"metadata":"none","version":"2"}"#);
        assert_eq!((own.weight, labels(&own)), (7, vec![("metadata", "none"), ("version", "2")]));
    }

    #[test]
    fn what_has_no_address_is_refused() {
        for (body, reason) in [
            ("", Reason::Body),
            ("[]", Reason::Body),
            ("{}", Reason::NoAddress),
            (r#"{"address":"10.0.0.1"}"#, Reason::NoAddress),
            (r#"{"address":"10.0.0.1","port":null,"sslPort":null}"#, Reason::NoAddress),
            (r#"{"address":"","port":80}"#, Reason::NoAddress),
            (r#"{"address":"10.0.0.1","port":99999}"#, Reason::NoAddress),
            (r#"{"address":"0.0.0.0","port":80}"#, Reason::NotConnectable),
        ] {
            assert_eq!(read_of(Layout::Curator, "10.0.0.1:80", body), Err(reason), "{body}");
        }
    }
}
