//! Where clients are sent: an address with places for what they asked.

/// What a client asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client<'a> {
    /// `http` or `https`.
    pub(crate) scheme: &'a str,
    /// With the port if one was given; empty if no host was.
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    /// Without the `?`.
    pub(crate) query: Option<&'a str>,
}

#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Scheme,
    Host,
    Hostname,
    Path,
    Query,
}

/// An address with places in it.
#[derive(Debug, PartialEq)]
pub(crate) struct Template(Vec<Part>);

/// A host without its port.
pub(crate) fn hostname(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

impl Template {
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let beginnings = ["/", "{path}", "http://", "https://", "{scheme}://"];
        // `//` would begin with a host.
        if !beginnings.iter().any(|beginning| text.starts_with(beginning)) || text.starts_with("//") {
            return Err(format!("`to` is `{text}`, but must begin with `/`, `https://`, `http://` or `{{scheme}}://`"));
        }
        if let Some(character) = text.chars().find(|it| !it.is_ascii_graphic() || *it == '\\') {
            return Err(format!("`to` has {character:?} in it, which no URL has: encode it as `%XX`"));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("`to` has a `{` without its `}`")?;
            parts.push(Part::Text(before.into()));
            parts.push(match name {
                "scheme" => Part::Scheme,
                "host" => Part::Host,
                "hostname" => Part::Hostname,
                "path" => Part::Path,
                "query" => Part::Query,
                _ => {
                    return Err(format!(
                        "`to` has `{{{name}}}` in it; there are {{scheme}}, {{host}}, {{hostname}}, {{path}} and {{query}}"
                    ));
                }
            });
            rest = after;
        }
        parts.push(Part::Text(rest.into()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self(parts))
    }

    /// The address for a client; none if its host is needed and it named none.
    pub(crate) fn fill(&self, client: &Client<'_>) -> Option<String> {
        let mut address = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => address.push_str(text),
                Part::Scheme => address.push_str(client.scheme),
                Part::Host | Part::Hostname if client.host.is_empty() => return None,
                Part::Host => address.push_str(client.host),
                Part::Hostname => address.push_str(hostname(client.host)),
                Part::Path => address.push_str(client.path),
                Part::Query => {
                    if let Some(query) = client.query {
                        address.push('?');
                        address.push_str(query);
                    }
                }
            }
        }
        // A path such as `//evil.example` would be a host to a browser, and so an open redirect.
        if address.starts_with("//") {
            address.replace_range(..address.len() - address.trim_start_matches('/').len(), "/");
        }
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Client<'_> = Client { scheme: "https", host: "[::1]:8443", path: "/a", query: Some("b") };

    fn filled(text: &str, client: &Client<'_>) -> String {
        Template::new(text).unwrap().fill(client).unwrap()
    }

    #[test]
    fn places_are_filled() {
        assert_eq!(filled("{scheme}://{host}/x{path}{query}", &CLIENT), "https://[::1]:8443/x/a?b");
        assert_eq!(filled("http://{hostname}:8080/{query}", &CLIENT), "http://[::1]:8080/?b");
        assert_eq!(filled("/plain", &CLIENT), "/plain");
        assert_eq!(filled("{path}{query}", &Client { query: None, ..CLIENT }), "/a");
    }

    #[test]
    fn a_path_does_not_become_a_host() {
        let client = Client { path: "//evil.example/x", ..CLIENT };
        assert_eq!(filled("{path}", &client), "/evil.example/x");
        assert_eq!(filled("/{path}", &client), "/evil.example/x");
        assert_eq!(filled("https://a{path}", &client), "https://a//evil.example/x");
    }

    #[test]
    fn hosts_lose_their_port_only() {
        for (host, name) in [("a:80", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")] {
            assert_eq!(hostname(host), name);
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("", "must begin with"),
            ("//a", "must begin with"),
            ("ftp://a", "must begin with"),
            ("/a b", "which no URL has"),
            ("/{pth}", "`{pth}` in it; there are {scheme}"),
            ("/{path", "without its `}`"),
        ] {
            let error = Template::new(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
