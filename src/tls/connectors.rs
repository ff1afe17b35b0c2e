//! How the endpoints of each service are connected to, as the configuration says it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Connector, Followed, Refused};
use crate::config::Config;
use crate::config::tls::EndpointTls;

/// A [`Connector`] for the services that say nothing of TLS, and one for each that does.
pub struct Connectors {
    others: Arc<Connector>,
    of: FxHashMap<Arc<str>, Arc<Connector>>,
}

impl Connectors {
    /// Reads the files of `[upstream.tls]` and each `[services.NAME.tls]`. Says also what there is to warn of.
    ///
    /// # Errors
    /// Every file that is bad.
    pub fn load(config: &Config) -> Result<(Connectors, Vec<String>), Vec<Refused>> {
        let (mut refused, mut warnings) = (Vec::new(), Vec::new());
        let mut load = |name: &str, tls: &EndpointTls| match Connector::load(name, tls) {
            Ok((connector, told)) => {
                warnings.extend(told.into_iter().map(|it| format!("{name}: {it}")));
                Some(connector)
            }
            Err(bad) => {
                refused.push(bad);
                None
            }
        };
        let all = config.upstream.tls.clone().unwrap_or_default();
        let others = load("upstream", &all);
        let mut of = FxHashMap::default();
        for (name, service) in &config.services {
            let Some(tls) = &service.tls else { continue };
            of.extend(load(&format!("service {}", name.0), &tls.over(&all)).map(|it| (name.0.clone(), it)));
        }
        if let Some(tls) = config.registry.zookeeper.as_ref().and_then(|it| it.tls.as_ref()) {
            // Read again with each session; here for the mistakes.
            load("registry.zookeeper", tls);
        }
        match others {
            Some(others) if refused.is_empty() => Ok((Connectors { others, of }, warnings)),
            _ => Err(refused),
        }
    }

    /// That of a service.
    pub fn of(&self, service: &str) -> &Arc<Connector> {
        self.of.get(service).unwrap_or(&self.others)
    }

    /// Has all of them made anew when their files change.
    pub fn follow(&self, followed: &Followed) {
        self.of.values().chain([&self.others]).for_each(|connector| followed.add(connector));
    }
}
