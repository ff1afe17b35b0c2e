//! The query of a request to the admin API: names and values, as forms encode them.

/// Its pairs, in their order.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// What stands behind the `?`; empty if nothing does.
    pub(super) fn read(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(a, b)| (decode(a), decode(b))).collect(),
        )
    }

    /// The first value of this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All values of this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What is no escape stays as it is.
fn decode(text: &str) -> String {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        let escaped = digits.filter(|_| *first == b'%').and_then(|it| u8::from_str_radix(it, 16).ok());
        rest = if escaped.is_some() { &more[2..] } else { more };
        out.push(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }));
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let query = Query::read("path=%2Fa%3Fb%3D1&header=x-a%3A+1&header=%C3%BC&flag&=&odd=%zz%");
        assert_eq!(query.get("path"), Some("/a?b=1"));
        assert_eq!(query.all("header").collect::<Vec<_>>(), ["x-a: 1", "ü"]);
        assert_eq!((query.get("flag"), query.get("odd"), query.get("none")), (Some(""), Some("%zz%"), None));
        assert_eq!(Query::read("").get(""), None);
    }
}
