//! How endpoints are treated: `[upstream]` for all services, `[services.NAME]` for one.
//!
//! Both tables are an [`Upstream`], in which everything may be left out; laid over each other and over the defaults
//! they make the [`Settings`] that a service runs with. What is done with them is in [`crate::endpoint`] and
//! [`crate::health`].

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::tls::EndpointTls;
use super::values::{self, Percent, Time};

/// A limit that may be set to anything useful; 0: none.
type Limit = Count<0, 1_000_000>;

/// `[upstream]` or `[services.NAME]`: what is left out is as in the table below it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// Connections with a request on them, to one endpoint, over all workers; 0: no limit. Idle ones of another worker
    /// may come on top, so that they are in nobody's way; while the sum is above the limit, none is kept that becomes
    /// idle.
    pub max_connections: Option<Limit>,
    /// Requests that wait for a connection to one endpoint: for it to open, or for a place on it; 0: no limit.
    pub max_pending: Option<Limit>,
    /// Requests in flight at one endpoint, over all workers; 0: no limit.
    pub max_requests: Option<Limit>,
    /// How long the share of a new or returning endpoint grows; zero: it has its whole share at once.
    #[serde(deserialize_with = "values::some_time_or_zero")]
    pub slow_start: Option<Time>,
    /// How many retries there may be.
    #[serde(skip_serializing_if = "SomeRetryBudget::is_empty")]
    pub retry_budget: SomeRetryBudget,
    /// When an endpoint is left out because of what requests met there.
    #[serde(skip_serializing_if = "SomeOutlier::is_empty")]
    pub outlier: SomeOutlier,
    /// How endpoints are asked whether they are well: a table, `true` for one with these defaults, or `false`; none if
    /// absent.
    pub health_check: Option<Check>,
    /// Which requests may have a connection that was used before.
    pub reuse: Option<Reuse>,
    /// How endpoints are connected to whose scheme is `https` or `h2`.
    pub tls: Option<EndpointTls>,
}

/// How many retries there may be, as it is written.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct SomeRetryBudget {
    /// Retries for requests.
    pub ratio: Option<Percent>,
    /// Retries a second that are allowed whatever the traffic: a fifth of little is nothing.
    pub min: Option<Limit>,
}

/// When an endpoint is left out because of what requests met there, as it is written.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct SomeOutlier {
    /// So many failures without a success in between; 0: never. As Envoy's `consecutive_gateway_failure`: no
    /// connection, a broken one, nonsense, no answer in time, or a status of `status`.
    pub consecutive: Option<Limit>,
    /// For how long, the first time; doubled each time it happens again, one step back for each time as long as this
    /// that it has been back.
    pub eject: Option<Time>,
    /// The longest it is doubled to.
    pub max_eject: Option<Time>,
    /// When less than this share of a service's endpoints would be left, all are used again, whatever is known of
    /// them: then it is rather the network or the check that is ill, and the few that are left would be overrun.
    /// Envoy's panic threshold, which is 50 % there too. 0 %: never.
    pub panic: Option<Percent>,
    /// Answers that count as failures.
    pub status: Option<Statuses>,
}

/// `health_check`: a table, `true` for one with all defaults, or `false` for none whatever `[upstream]` says.
#[derive(Clone, Debug)]
pub enum Check {
    /// None.
    Off,
    /// With these settings.
    On(SomeHealthCheck),
}

/// How endpoints are asked whether they are well, as it is written.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SomeHealthCheck {
    /// What is asked for; none: a connection that opens is enough.
    pub path: Option<CheckPath>,
    /// Endpoints that speak HTTP/2 are asked by gRPC's health protocol, for the server as a whole, and not for a path.
    pub grpc: Option<bool>,
    /// From one check of an endpoint to its next, give or take a tenth. At least 10 ms.
    #[serde(deserialize_with = "values::some_check_interval")]
    pub interval: Option<Time>,
    /// How long one may take.
    pub timeout: Option<Time>,
    /// Good ones in a row until an endpoint is used again.
    pub healthy: Option<Count<1, 100>>,
    /// Bad ones in a row until it is left out.
    pub unhealthy: Option<Count<1, 100>>,
    /// What answers are good.
    pub status: Option<Statuses>,
}

/// How the endpoints of one service are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// See [`Upstream::max_connections`].
    pub max_connections: u32,
    /// See [`Upstream::max_pending`].
    pub max_pending: u32,
    /// See [`Upstream::max_requests`].
    pub max_requests: u32,
    /// See [`Upstream::slow_start`].
    pub slow_start: Duration,
    /// How many retries there may be.
    pub retry_budget: RetryBudget,
    /// When an endpoint is left out because of what requests met there.
    pub outlier: Outlier,
    /// How endpoints are asked whether they are well; none: they are not.
    pub health_check: Option<HealthCheck>,
    /// See [`Upstream::reuse`].
    pub reuse: Reuse,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            // The gateway as a whole takes 10,000 requests at a time: an endpoint that hangs must not get hold of
            // them all. To one address there are about 28,000 ports, so that this is far from the end of these, too.
            max_connections: 4096,
            max_requests: 4096,
            // An endpoint where so many wait for a connection does not accept any, and more would wait in vain.
            max_pending: 1024,
            slow_start: Duration::ZERO,
            retry_budget: RetryBudget::default(),
            outlier: Outlier::default(),
            health_check: None,
            reuse: Reuse::Safe,
        }
    }
}

/// Retries are allowed while they are fewer than `ratio` of the requests of the last ten seconds, and `min` a second
/// besides, of which those of ten seconds may come together. Finagle's and Linkerd's rule, with their numbers: a service that fails as a whole gets a fifth more
/// requests, not three times as many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// See [`SomeRetryBudget::ratio`].
    pub ratio: Percent,
    /// See [`SomeRetryBudget::min`].
    pub min: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { ratio: Percent(20), min: 10 }
    }
}

/// When an endpoint is left out because of what requests met there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// See [`SomeOutlier::consecutive`].
    pub consecutive: u32,
    /// See [`SomeOutlier::eject`].
    pub eject: Duration,
    /// See [`SomeOutlier::max_eject`].
    pub max_eject: Duration,
    /// See [`SomeOutlier::panic`].
    pub panic: Percent,
    /// See [`SomeOutlier::status`].
    pub status: Statuses,
}

impl Default for Outlier {
    fn default() -> Self {
        Outlier {
            consecutive: 5,
            eject: Duration::from_secs(10),
            max_eject: Duration::from_secs(300),
            panic: Percent(50),
            // What a server in front of a dead application answers. A 500 is an application that lives.
            status: Statuses::of(502..=504),
        }
    }
}

/// How endpoints are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// See [`SomeHealthCheck::path`].
    pub path: Option<CheckPath>,
    /// See [`SomeHealthCheck::grpc`].
    pub grpc: bool,
    /// See [`SomeHealthCheck::interval`].
    pub interval: Duration,
    /// See [`SomeHealthCheck::timeout`].
    pub timeout: Duration,
    /// See [`SomeHealthCheck::healthy`].
    pub healthy: u32,
    /// See [`SomeHealthCheck::unhealthy`].
    pub unhealthy: u32,
    /// See [`SomeHealthCheck::status`].
    pub status: Statuses,
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            path: None,
            grpc: false,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
            status: Statuses::of(200..=399),
        }
    }
}

/// Which requests may have a connection that was used before.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reuse {
    /// Those that may be repeated; another gets a fresh one, because an endpoint may close an idle one at any moment,
    /// and nobody could tell whether it still took the request.
    Safe,
    /// All.
    Always,
}

impl Upstream {
    /// What is written here, and the rest from `below`.
    pub fn over(&self, below: Settings) -> Settings {
        let (retry, outlier) = (&self.retry_budget, &self.outlier);
        let count = |written: &Option<Limit>, below| written.map_or(below, |it| it.0);
        let time = |written: &Option<Time>, below| written.map_or(below, |it| it.0);
        Settings {
            max_connections: count(&self.max_connections, below.max_connections),
            max_pending: count(&self.max_pending, below.max_pending),
            max_requests: count(&self.max_requests, below.max_requests),
            slow_start: time(&self.slow_start, below.slow_start),
            retry_budget: RetryBudget {
                ratio: retry.ratio.unwrap_or(below.retry_budget.ratio),
                min: count(&retry.min, below.retry_budget.min),
            },
            outlier: Outlier {
                consecutive: count(&outlier.consecutive, below.outlier.consecutive),
                eject: time(&outlier.eject, below.outlier.eject),
                max_eject: time(&outlier.max_eject, below.outlier.max_eject),
                panic: outlier.panic.unwrap_or(below.outlier.panic),
                status: outlier.status.clone().unwrap_or(below.outlier.status),
            },
            health_check: match &self.health_check {
                None => below.health_check,
                Some(Check::Off) => None,
                Some(Check::On(check)) => Some(check.over(below.health_check.unwrap_or_default())),
            },
            reuse: self.reuse.unwrap_or(below.reuse),
        }
    }
}

impl From<Settings> for Upstream {
    /// With nothing left out. How endpoints are connected to is none of the settings.
    fn from(settings: Settings) -> Upstream {
        let Settings {
            max_connections,
            max_pending,
            max_requests,
            slow_start,
            retry_budget,
            outlier,
            health_check,
            reuse,
        } = settings;
        Upstream {
            max_connections: Some(Count(max_connections)),
            max_pending: Some(Count(max_pending)),
            max_requests: Some(Count(max_requests)),
            slow_start: Some(Time(slow_start)),
            retry_budget: SomeRetryBudget { ratio: Some(retry_budget.ratio), min: Some(Count(retry_budget.min)) },
            outlier: SomeOutlier {
                consecutive: Some(Count(outlier.consecutive)),
                eject: Some(Time(outlier.eject)),
                max_eject: Some(Time(outlier.max_eject)),
                panic: Some(outlier.panic),
                status: Some(outlier.status),
            },
            health_check: Some(health_check.map_or(Check::Off, |it| Check::On(it.into()))),
            reuse: Some(reuse),
            tls: None,
        }
    }
}

impl From<HealthCheck> for SomeHealthCheck {
    fn from(check: HealthCheck) -> SomeHealthCheck {
        SomeHealthCheck {
            path: check.path,
            grpc: Some(check.grpc),
            interval: Some(Time(check.interval)),
            timeout: Some(Time(check.timeout)),
            healthy: Some(Count(check.healthy)),
            unhealthy: Some(Count(check.unhealthy)),
            status: Some(check.status),
        }
    }
}

impl SomeRetryBudget {
    fn is_empty(&self) -> bool {
        *self == SomeRetryBudget::default()
    }
}

impl SomeOutlier {
    fn is_empty(&self) -> bool {
        *self == SomeOutlier::default()
    }
}

impl SomeHealthCheck {
    fn over(&self, below: HealthCheck) -> HealthCheck {
        HealthCheck {
            path: self.path.clone().map_or(below.path, |path| Some(path).filter(|it| !it.0.is_empty())),
            grpc: self.grpc.unwrap_or(below.grpc),
            interval: self.interval.map_or(below.interval, |it| it.0),
            timeout: self.timeout.map_or(below.timeout, |it| it.0),
            healthy: self.healthy.map_or(below.healthy, |it| it.0),
            unhealthy: self.unhealthy.map_or(below.unhealthy, |it| it.0),
            status: self.status.clone().unwrap_or(below.status),
        }
    }
}

/// A whole number within bounds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const LEAST: i64, const MOST: i64>(pub u32);

impl<'de, const LEAST: i64, const MOST: i64> Deserialize<'de> for Count<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(from)?;
        let good = u32::try_from(number).ok().filter(|_| (LEAST..=MOST).contains(&number));
        good.map(Count).ok_or_else(|| D::Error::custom(format!("{number} is not a number from {LEAST} to {MOST}")))
    }
}

impl<const LEAST: i64, const MOST: i64> Serialize for Count<LEAST, MOST> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(self.0)
    }
}

impl<const LEAST: i64, const MOST: i64> JsonSchema for Count<LEAST, MOST> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Count_{LEAST}_{MOST}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": LEAST, "maximum": MOST })
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Check::Off => to.serialize_bool(false),
            Check::On(check) => check.serialize(to),
        }
    }
}

impl JsonSchema for Check {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Check".into()
    }

    fn json_schema(of: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [of.subschema_for::<SomeHealthCheck>(), { "type": "boolean" }] })
    }
}

impl<'de> Deserialize<'de> for Check {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Check;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("true, false or a table like { path = \"/health\" }")
            }

            fn visit_bool<E: Error>(self, on: bool) -> Result<Check, E> {
                Ok(if on { Check::On(SomeHealthCheck::default()) } else { Check::Off })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Check, A::Error> {
                SomeHealthCheck::deserialize(MapAccessDeserializer::new(map)).map(Check::On)
            }
        }

        from.deserialize_any(Written)
    }
}

/// What a check asks for: a path and perhaps a query. Empty: nothing, a connection is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckPath(pub Arc<str>);

impl FromStr for CheckPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // It is written into a request as it is, so nothing may stand in it that could end the line.
        let good = |it: char| it.is_ascii_graphic() && it != '#';
        if text.is_empty() || text.starts_with('/') && text.chars().all(good) {
            return Ok(CheckPath(text.into()));
        }
        Err(format!("{text:?} is not a path like \"/health\", with everything but ASCII letters and signs encoded"))
    }
}

/// Statuses: `"200-399"`, `"200, 204, 301-308"`; none if empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Arc<[RangeInclusive<u16>]>);

impl Statuses {
    fn of(range: RangeInclusive<u16>) -> Statuses {
        Statuses([range].into())
    }

    /// Whether it is one of them.
    pub fn contains(&self, status: StatusCode) -> bool {
        self.0.iter().any(|range| range.contains(&status.as_u16()))
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let status = |text: &str| text.trim().parse::<u16>().ok().filter(|it| (100..=999).contains(it));
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            status(first).zip(status(last)).map(|(first, last)| first..=last).filter(|range| !range.is_empty())
        };
        if text.trim().is_empty() {
            return Ok(Statuses([].into()));
        }
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        let bad = || format!("{text:?} is not a list of statuses like \"200-399\" or \"200, 204\"");
        ranges.map(|it| Statuses(it.into())).ok_or_else(bad)
    }
}

values::displayed! {
    CheckPath: |it, out| out.write_str(&it.0),
    Statuses: |it, out| {
        for (number, range) in it.0.iter().enumerate() {
            out.write_str(if number > 0 { ", " } else { "" })?;
            match range.start() == range.end() {
                true => write!(out, "{}", range.start())?,
                false => write!(out, "{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    },
}

values::written_as_string! {
    CheckPath: "a path like \"/health\"",
    Statuses: "statuses like \"200-399\"",
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(text: &str) -> Upstream {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn tables_are_laid_over_each_other_key_by_key() {
        let all = upstream(
            "max_requests = 7\noutlier = { eject = \"2s\" }\nhealth_check = { path = \"/up\", unhealthy = 9 }\n\
             reuse = \"always\"",
        );
        let one = upstream("outlier = { panic = \"0%\" }\nhealth_check = { interval = \"1s\" }\nmax_pending = 0");
        let settings = one.over(all.over(Settings::default()));
        assert_eq!((settings.max_requests, settings.max_pending, settings.reuse), (7, 0, Reuse::Always));
        assert_eq!((settings.outlier.consecutive, settings.outlier.eject), (5, Duration::from_secs(2)));
        assert_eq!(settings.outlier.panic, Percent(0));
        let check = settings.health_check.unwrap();
        assert_eq!((check.path, check.unhealthy), (Some(CheckPath("/up".into())), 9));
        assert_eq!((check.interval, check.timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    }

    #[test]
    fn one_service_can_be_checked_otherwise_or_not_at_all() {
        let all = upstream("health_check = { path = \"/up\" }").over(Settings::default());
        assert_eq!(upstream("health_check = false").over(all.clone()).health_check, None);
        let tcp = upstream("health_check = { path = \"\" }").over(all);
        assert_eq!(tcp.health_check, Some(HealthCheck::default()));
        let on = upstream("health_check = true").over(Settings::default());
        assert_eq!(on.health_check, Some(HealthCheck::default()));
        assert_eq!(upstream("").over(Settings::default()), Settings::default());
    }

    #[test]
    fn statuses_are_numbers_and_ranges() {
        let all: Statuses = "200, 301-303".parse().unwrap();
        let holds = |status: u16| all.contains(StatusCode::from_u16(status).unwrap());
        assert!(holds(200) && holds(301) && holds(303) && !holds(201) && !holds(304));
        assert!(!"".parse::<Statuses>().unwrap().contains(StatusCode::OK));
        for bad in ["2xx", "99", "300-200", "200,", "-", "200-"] {
            assert!(bad.parse::<Statuses>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_check_path_cannot_break_out_of_its_line() {
        for bad in ["health", "/a b", "/a\r\nx: y", "/ü", "/a#b"] {
            assert!(bad.parse::<CheckPath>().is_err(), "{bad}");
        }
        assert!("/health?deep=1".parse::<CheckPath>().is_ok());
    }
}
