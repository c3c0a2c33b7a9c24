//! Resolves host names with the system's settings (`/etc/hosts`, `/etc/resolv.conf`).
//!
//! This does not use `getaddrinfo`, because a name server that never answers would block its threads. The
//! number of concurrent look-ups is limited, because each has its own sockets.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::domain::delivery::SendError;

/// The most look-ups at a time.
const LOOKUPS_MAX: usize = 256;

/// The time for one look-up, including all retries that the system's settings ask for.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// When one family has answered, how long to wait for the other one (RFC 8305 section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// The system's settings are read again after this time. In a container they may change while it runs.
const SETTINGS_AGE: Duration = Duration::from_secs(60);

pub(super) struct Names {
    resolver: Mutex<Option<(Instant, Arc<TokioResolver>)>>,
    lookups: Semaphore,
}

impl Default for Names {
    fn default() -> Self {
        Self { resolver: Mutex::default(), lookups: Semaphore::new(LOOKUPS_MAX) }
    }
}

impl Names {
    /// The addresses of a name that arrived in time. The two families alternate, IPv6 first (RFC 8305
    /// section 4).
    pub(super) async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, SendError> {
        let lookup = async {
            let _permit = self.lookups.acquire().await.ok()?;
            let resolver = self.resolver()?;
            let v6 = pin!(async { addresses(resolver.ipv6_lookup(name).await) });
            let v4 = pin!(async { addresses(resolver.ipv4_lookup(name).await) });
            Some(match select(v6, v4).await {
                Either::Left((v6, v4)) => (timeout(patience(&v6), v4).await.unwrap_or_default(), v6),
                Either::Right((v4, v6)) => {
                    let v6 = timeout(patience(&v4), v6).await.unwrap_or_default();
                    (v4, v6)
                }
            })
        };
        let (v4, v6) = timeout(LOOKUP_TIMEOUT, lookup).await.ok().flatten().unwrap_or_default();
        if v4.is_empty() && v6.is_empty() {
            return Err(SendError::NameNotResolved);
        }
        Ok(in_turns(v6, v4))
    }

    /// A resolver with the system's settings, read again after [`SETTINGS_AGE`].
    fn resolver(&self) -> Option<Arc<TokioResolver>> {
        let mut kept = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_at, resolver)) = &*kept
            && made_at.elapsed() < SETTINGS_AGE
        {
            return Some(Arc::clone(resolver));
        }
        let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::debug!(%error, "no name server is set up; asking this machine");
            // The C library does the same.
            let local = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![local]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        });
        match builder.build() {
            Ok(resolver) => {
                let resolver = Arc::new(resolver);
                *kept = Some((Instant::now(), Arc::clone(&resolver)));
                Some(resolver)
            }
            Err(error) => {
                tracing::warn!(%error, "host names cannot be resolved");
                None
            }
        }
    }
}

fn addresses(found: Result<Lookup, NetError>) -> Vec<IpAddr> {
    let Ok(found) = found else { return Vec::new() };
    found.answers().iter().filter_map(|record| record.data.ip_addr()).collect()
}

/// How long to wait for the other address family.
fn patience(found: &[IpAddr]) -> Duration {
    if found.is_empty() { LOOKUP_TIMEOUT } else { RESOLUTION_DELAY }
}

fn in_turns(first: Vec<IpAddr>, second: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut turns = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let pair = (first.next(), second.next());
        if pair == (None, None) {
            return turns;
        }
        turns.extend(pair.0.into_iter().chain(pair.1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_the_longer_one_ends_the_list() {
        let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let v6 = vec![ip("2600::1"), ip("2600::2"), ip("2600::3")];
        let v4 = vec![ip("8.8.8.8")];
        let expected = [ip("2600::1"), ip("8.8.8.8"), ip("2600::2"), ip("2600::3")];
        assert_eq!(in_turns(v6, v4.clone()), expected);
        assert_eq!(in_turns(Vec::new(), v4.clone()), v4);
    }
}
