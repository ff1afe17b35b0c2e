//! Where in ZooKeeper services are, and how their endpoints are written there.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::values::ZnodePath;

/// How the znodes of a service are written.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Whatever each service's znodes turn out to be.
    Auto,
    /// gliderlabs/registrator: `<service>/<ip:port>`, where the name is enough.
    Registrator,
    /// Curator's service discovery: Spring Cloud ZooKeeper, and Dubbo 3 by applications.
    Curator,
    /// Finagle and Aurora: `<service>/member_…` and `<service>/vector_…`.
    Serverset,
    /// SmartStack's Nerve.
    Nerve,
    /// Dubbo by interfaces: `<interface>/providers/<URL>`.
    Dubbo,
}

impl Layout {
    /// As it is written in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Layout::Auto => "auto",
            Layout::Registrator => "registrator",
            Layout::Curator => "curator",
            Layout::Serverset => "serverset",
            Layout::Nerve => "nerve",
            Layout::Dubbo => "dubbo",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// A znode whose children are services.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Root {
    /// Where it is.
    pub path: ZnodePath,
    /// As its services are written; none: as [`super::ZooKeeper::layout`] says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// What the names of its services begin with here; may be empty.
    pub prefix: Arc<str>,
}

impl Root {
    /// With nothing but a path.
    pub fn at(path: &str) -> Root {
        Root { path: ZnodePath(path.to_owned()), layout: None, prefix: "".into() }
    }

    /// The path without a trailing slash, and so empty for `/`.
    pub fn trimmed(&self) -> &str {
        self.path.0.trim_end_matches('/')
    }
}

/// Roots in the order of their precedence: of two services of one name that of the first root counts. Never empty, and
/// none is below or equal to another.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Roots(pub Vec<Root>);

impl Roots {
    fn of(all: Vec<Root>) -> Result<Roots, String> {
        if all.is_empty() {
            return Err("an empty list: write at least one znode's path like \"/services\"".into());
        }
        for (at, root) in all.iter().enumerate() {
            let (here, path) = (root.trimmed(), &root.path.0);
            for before in &all[..at] {
                let (there, other) = (before.trimmed(), &before.path.0);
                if here == there {
                    return Err(format!("{path:?} is there twice"));
                }
                let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|it| it.starts_with('/'));
                if within(here, there) || within(there, here) {
                    return Err(format!("{path:?} and {other:?}: one is below the other"));
                }
            }
        }
        Ok(Roots(all))
    }
}

impl Default for Roots {
    fn default() -> Self {
        Roots(vec![Root::at("/services")])
    }
}

impl JsonSchema for Roots {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Roots".into()
    }

    fn json_schema(schemas: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let (path, layout) = (schemas.subschema_for::<ZnodePath>(), schemas.subschema_for::<Layout>());
        schemars::json_schema!({
            "anyOf": [
                path,
                { "type": "array", "minItems": 1, "items": { "anyOf": [
                    path,
                    {
                        "type": "object",
                        "properties": { "path": path, "layout": layout, "prefix": { "type": "string" } },
                        "required": ["path"],
                        "additionalProperties": false,
                    },
                ] } },
            ],
        })
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum RootKey {
    Path,
    Layout,
    Prefix,
}

/// The beginning of a service's name.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Prefix(Arc<str>);

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.contains('/') {
            true => Err(format!("{text:?} cannot begin a service's name: it has a \"/\"")),
            false => Ok(Prefix(text.into())),
        }
    }
}

// By hand: `untagged` would say "did not match any variant" at the whole value, for a mistake anywhere within.
impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Root;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a znode's path like \"/services\" or a table like { path = \"/services\" }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Root, E> {
                let path = text.parse().map_err(E::custom)?;
                Ok(Root { path, layout: None, prefix: "".into() })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Root, A::Error> {
                let (mut path, mut layout, mut prefix) = (None, None, None);
                while let Some(key) = map.next_key()? {
                    match key {
                        RootKey::Path => path = Some(map.next_value()?),
                        RootKey::Layout => layout = Some(map.next_value()?),
                        RootKey::Prefix => prefix = Some(map.next_value::<Prefix>()?.0),
                    }
                }
                let path = path.ok_or_else(|| A::Error::missing_field("path"))?;
                Ok(Root { path, layout, prefix: prefix.unwrap_or_default() })
            }
        }

        from.deserialize_any(Written)
    }
}

impl<'de> Deserialize<'de> for Roots {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Roots;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a znode's path like \"/services\" or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Roots, E> {
                let path = text.parse().map_err(E::custom)?;
                Ok(Roots(vec![Root { path, layout: None, prefix: "".into() }]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Roots, A::Error> {
                let mut all = Vec::new();
                while let Some(root) = list.next_element()? {
                    all.push(root);
                }
                Roots::of(all).map_err(A::Error::custom)
            }
        }

        from.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Written {
        root: Roots,
    }

    fn read(text: &str) -> Result<Roots, String> {
        toml::from_str::<Written>(&format!("root = {text}")).map(|it| it.root).map_err(|error| error.message().into())
    }

    #[test]
    fn a_root_is_a_path_a_list_of_them_or_of_tables() {
        assert_eq!(read(r#""/services""#), Ok(Roots::default()));
        let dubbo = Root { path: ZnodePath("/dubbo".into()), layout: Some(Layout::Dubbo), prefix: "rpc.".into() };
        assert_eq!(
            read(r#"["/services", { path = "/dubbo", layout = "dubbo", prefix = "rpc." }]"#),
            Ok(Roots(vec![Root::at("/services"), dubbo]))
        );
        assert_eq!(Root::at("/").trimmed(), "");
    }

    #[test]
    fn roots_that_overlap_are_refused() {
        for (text, why) in [
            ("[]", "an empty list: write at least one znode's path like \"/services\""),
            (r#"["/a", "/a"]"#, "\"/a\" is there twice"),
            (r#"["/a", "/a/b"]"#, "\"/a/b\" and \"/a\": one is below the other"),
            (r#"["/a/b", "/"]"#, "\"/\" and \"/a/b\": one is below the other"),
            (r#"[{ layout = "dubbo" }]"#, "missing field `path`"),
        ] {
            assert_eq!(read(text).unwrap_err(), why, "{text}");
        }
        assert!(read(r#"["/a", "/ab"]"#).is_ok());
    }
}
