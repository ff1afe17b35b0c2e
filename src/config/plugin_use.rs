//! A use of a plugin, as it is written: its name alone, or a table with its configuration.
//!
//! Whether there is such a plugin and whether it accepts its configuration is asked in [`super::file`].

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::{Map, Value};
use toml::Spanned;

use super::plugins::{Rollback, Share};
use super::{Balancer, BalancerFailure, Canary, Filter, FilterFailure, PluginName, Used, secret};

/// A plugin in use: `"name"` or `{ plugin = "name", config = { … }, on_failure = "…" }`. `F`: what its failure may
/// be said to mean.
#[derive(Clone, Debug)]
pub struct PluginUse<F> {
    plugin: PluginName,
    /// `{}` if absent.
    config: Arc<str>,
    files: Vec<(String, Spanned<PathBuf>)>,
    on_failure: Option<F>,
    fallback: Option<Box<Balancer>>,
    canary: Option<Canary>,
    shadow: Option<Used>,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum PluginUseKey {
    Plugin,
    Config,
    Files,
    OnFailure,
    Fallback,
    Canary,
    Shadow,
}

/// What a failure may be said to mean, by which balancers and filters are told apart.
pub trait Meaning {
    /// It is a balancer's.
    const BALANCER: bool;
}

impl Meaning for BalancerFailure {
    const BALANCER: bool = true;
}

impl Meaning for FilterFailure {
    const BALANCER: bool = false;
}

// By hand: `untagged` would say "did not match any variant" at the whole value, for a mistake anywhere within.
impl<'de, F: Deserialize<'de> + Meaning> Deserialize<'de> for PluginUse<F> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written<F>(PhantomData<F>);

        impl<'de, F: Deserialize<'de> + Meaning> Visitor<'de> for Written<F> {
            type Value = PluginUse<F>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a plugin's name or a table like { plugin = \"name\", config = { } }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let plugin = text.parse().map_err(E::custom)?;
                let (files, fallback, canary, shadow) = (Vec::new(), None, None, None);
                Ok(PluginUse { plugin, config: "{}".into(), files, on_failure: None, fallback, canary, shadow })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut plugin, mut config, mut on_failure) = (None, None, None);
                let (mut fallback, mut shadow, mut canary, mut files) = (None, None, None, BTreeMap::new());
                let only = |key| match F::BALANCER {
                    true => Ok(()),
                    false => Err(A::Error::custom(format!("only a balancer can have a {key}"))),
                };
                while let Some(key) = map.next_key()? {
                    match key {
                        PluginUseKey::Plugin => plugin = Some(map.next_value()?),
                        PluginUseKey::Config => config = Some(map.next_value::<PluginConfig>()?.0),
                        PluginUseKey::Files => files = map.next_value()?,
                        PluginUseKey::OnFailure => on_failure = Some(map.next_value()?),
                        PluginUseKey::Fallback => {
                            only("fallback")?;
                            fallback = Some(Box::new(map.next_value::<Balancer>()?));
                        }
                        PluginUseKey::Shadow => {
                            only("shadow")?;
                            shadow = Some(Used::from(map.next_value::<Spanned<WrittenShadow>>()?));
                        }
                        PluginUseKey::Canary => canary = Some(map.next_value::<Spanned<WrittenCanary>>()?),
                    }
                }
                let plugin = plugin.ok_or_else(|| A::Error::missing_field("plugin"))?;
                let config: Arc<str> = config.unwrap_or_else(|| "{}".into());
                let files: Vec<_> = files.into_iter().collect();
                let canary = canary.map(|written| Canary::of(written, &config, &files));
                Ok(PluginUse { plugin, config, files, on_failure, fallback, canary, shadow })
            }
        }

        from.deserialize_any(Written(PhantomData))
    }
}

/// A shadow: a name, or a table with a configuration.
#[derive(Clone, Debug)]
struct WrittenShadow(PluginName, Arc<str>, BTreeMap<String, Spanned<PathBuf>>);

impl<'de> Deserialize<'de> for WrittenShadow {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = PluginUse::<BalancerFailure>::deserialize(from)?;
        let PluginUse { plugin, config, files, on_failure, fallback, canary, shadow } = written;
        let more = [
            ("on_failure", on_failure.is_some()),
            ("fallback", fallback.is_some()),
            ("canary", canary.is_some()),
            ("shadow", shadow.is_some()),
        ];
        match more.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(D::Error::custom(format!("a shadow only looks on, and can have no {key}"))),
            None => Ok(WrittenShadow(plugin, config, files.into_iter().collect())),
        }
    }
}

impl From<Spanned<WrittenShadow>> for Used {
    fn from(written: Spanned<WrittenShadow>) -> Used {
        let at = written.span();
        let WrittenShadow(plugin, config, files) = written.into_inner();
        Used { plugin, config, files: files.into_iter().collect(), at }
    }
}

/// A canary as it is written.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenCanary {
    /// The plugin that is tried.
    plugin: PluginName,
    /// Its share of the calls.
    share: Share,
    /// What it is configured with; as the plugin in whose place it is if absent.
    #[schemars(with = "Option<Map<String, Value>>")]
    config: Option<PluginConfig>,
    /// Files whose texts become the values of keys of its configuration.
    #[schemars(with = "Option<BTreeMap<String, PathBuf>>")]
    files: Option<BTreeMap<String, Spanned<PathBuf>>>,
    /// When it is left alone again.
    #[serde(default)]
    rollback: Rollback,
}

/// A plugin in use as a table with all that can be said of it, for schemas and to be written again.
#[derive(serde::Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Table<F> {
    /// The name of the plugin.
    plugin: PluginName,
    /// What the plugin is configured with; its own words say what may be here.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Map<String, Value>>,
    /// Files whose texts become the values of keys of the configuration, so that secrets need not stand in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<BTreeMap<String, PathBuf>>,
    /// What a failure of the plugin means to the request; as `plugins.on_failure` has it if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    on_failure: Option<F>,
    /// Another version, on a share of the calls, until it is found wanting.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<WrittenCanary>")]
    canary: Option<CanaryTable>,
    /// Only of a balancer: who picks where this one has no opinion, or fails and may; native round robin if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<Balancer>,
    /// Only of a balancer: one whose picks are only compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Name>")]
    shadow: Option<Box<Table<()>>>,
}

/// [`WrittenCanary`], to be written again.
#[derive(serde::Serialize)]
struct CanaryTable {
    plugin: PluginName,
    share: Share,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<BTreeMap<String, PathBuf>>,
    rollback: Rollback,
}

impl<F> Table<F> {
    fn of(used: &Used) -> Table<F> {
        let config = used.shown();
        let files = used.files.iter().map(|(key, path)| (key.clone(), path.get_ref().clone()));
        Table {
            plugin: used.plugin.clone(),
            config: Some(config).filter(|it| !it.is_empty()),
            files: Some(files.collect::<BTreeMap<_, _>>()).filter(|it| !it.is_empty()),
            on_failure: None,
            canary: None,
            fallback: None,
            shadow: None,
        }
    }

    fn is_name(&self) -> bool {
        let Table { plugin: _, config, files, on_failure, canary, fallback, shadow } = self;
        config.is_none()
            && files.is_none()
            && on_failure.is_none()
            && canary.is_none()
            && fallback.is_none()
            && shadow.is_none()
    }
}

impl CanaryTable {
    /// What it has of the plugin in whose place it is goes without saying.
    fn of(canary: &Canary, main: &Used) -> CanaryTable {
        let Table { plugin, mut config, mut files, .. } = Table::<()>::of(&canary.used);
        if canary.used.config == main.config {
            (config, files) = (None, None);
        }
        CanaryTable { plugin, share: Share(canary.share), config, files, rollback: canary.rollback }
    }
}

impl Used {
    /// The configuration, as far as anybody may see it: without the texts of files, and with secrets only told apart.
    pub fn shown(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut config)) = serde_json::from_str(&self.config) else { return Map::new() };
        self.files.iter().for_each(|(key, _)| drop(config.remove(key)));
        secret::veil(&mut config);
        config
    }
}

impl Serialize for Balancer {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let table = Table {
            on_failure: self.on_failure,
            canary: self.canary.as_ref().map(|it| CanaryTable::of(it, &self.used)),
            fallback: self.fallback.as_deref().cloned(),
            shadow: self.shadow.as_ref().map(|it| Box::new(Table::of(it))),
            ..Table::of(&self.used)
        };
        if table.is_name() { table.plugin.serialize(to) } else { table.serialize(to) }
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let canary = self.canary.as_ref().map(|it| CanaryTable::of(it, &self.used));
        let table = Table { on_failure: self.on_failure, canary, ..Table::of(&self.used) };
        if table.is_name() { table.plugin.serialize(to) } else { table.serialize(to) }
    }
}

/// A name, or a table of it: what is not allowed there is taken out.
fn schema_of<F: JsonSchema>(of: &mut SchemaGenerator, without: &[&str]) -> Schema {
    let mut table = Table::<F>::json_schema(of);
    table.remove("description");
    for key in without {
        table.pointer_mut("/properties").and_then(Value::as_object_mut).map(|all| all.remove(*key));
    }
    json_schema!({ "anyOf": [of.subschema_for::<PluginName>(), table] })
}

/// A plugin without anything but its configuration.
struct Name;

macro_rules! schema {
    ($($name:ident: $failure:ty, $title:literal, $without:expr);* $(;)?) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(of: &mut SchemaGenerator) -> Schema {
                let mut schema = schema_of::<$failure>(of, $without);
                schema.insert("title".into(), $title.into());
                schema
            }
        }
    )*};
}

schema! {
    Balancer: BalancerFailure, "a balancer's name, or a table", &[];
    Filter: FilterFailure, "a filter's name, or a table", &["fallback", "shadow"];
    Name: (), "a plugin's name, or a table", &["on_failure", "canary", "fallback", "shadow"];
}

impl Canary {
    fn of(written: Spanned<WrittenCanary>, config: &Arc<str>, main: &[(String, Spanned<PathBuf>)]) -> Canary {
        let at = written.span();
        let WrittenCanary { plugin, share, config: own, files, rollback } = written.into_inner();
        // With a configuration of its own it does not want the other's files either.
        let files = match (files, &own) {
            (Some(files), _) => files.into_iter().collect(),
            (None, Some(_)) => Vec::new(),
            (None, None) => main.to_vec(),
        };
        let config = own.map_or_else(|| config.clone(), |own| own.0);
        Canary { used: Used { plugin, config, files, at }, share: share.0, rollback }
    }
}

impl From<Spanned<PluginUse<BalancerFailure>>> for Balancer {
    fn from(written: Spanned<PluginUse<BalancerFailure>>) -> Balancer {
        let at = written.span();
        let PluginUse { plugin, config, files, on_failure, fallback, canary, shadow } = written.into_inner();
        Balancer { used: Used { plugin, config, files, at }, on_failure, fallback, canary, shadow }
    }
}

impl From<Spanned<PluginUse<FilterFailure>>> for Filter {
    fn from(written: Spanned<PluginUse<FilterFailure>>) -> Filter {
        let at = written.span();
        let PluginUse { plugin, config, files, on_failure, canary, .. } = written.into_inner();
        Filter { used: Used { plugin, config, files, at }, on_failure, canary }
    }
}

/// A table of anything, as JSON.
#[derive(Clone, Debug)]
pub(crate) struct PluginConfig(pub(crate) Arc<str>);

impl<'de> Deserialize<'de> for PluginConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let table = toml::Table::deserialize(from)?;
        let json = json(toml::Value::Table(table)).map_err(D::Error::custom)?;
        Ok(PluginConfig(json.to_string().into()))
    }
}

fn json(value: toml::Value) -> Result<serde_json::Value, String> {
    Ok(match value {
        toml::Value::String(it) => it.into(),
        toml::Value::Integer(it) => it.into(),
        toml::Value::Float(it) if it.is_finite() => it.into(),
        toml::Value::Float(it) => {
            return Err(format!("{it} cannot be told to a plugin, because JSON has no such number"));
        }
        toml::Value::Boolean(it) => it.into(),
        // JSON has no dates.
        toml::Value::Datetime(it) => it.to_string().into(),
        toml::Value::Array(all) => serde_json::Value::Array(all.into_iter().map(json).collect::<Result<_, _>>()?),
        toml::Value::Table(all) => serde_json::Value::Object(
            all.into_iter().map(|(key, value)| Ok((key, json(value)?))).collect::<Result<_, String>>()?,
        ),
    })
}
