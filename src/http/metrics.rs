//! HTTP metrics: requests by route and status, their latency, and refusals by reason.
//!
//! Counting costs a lookup in a small table and a few atomic additions. Labels are built once, when a route
//! first answers with a status, and not for each call.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use strum::VariantArray;

use crate::domain::reason::Reason;

/// Upper bounds in seconds, from an answer out of memory up to the time-out of a request.
const LATENCY_BUCKETS_SECS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0];

/// The route label of requests that match no route. Using their path would let callers make up labels.
const NO_ROUTE: &str = "none";

/// The statuses of failures that are not the caller's fault.
const FAULTS: [&str; 2] = ["500", "503"];

/// HTTP statuses are from 100 to 599.
const STATUS_MIN: u16 = 100;
const STATUSES: usize = 500;

/// The labels of a series, in order.
pub(super) type Labels<const N: usize> = [(&'static str, String); N];

/// Counts since the start of the process.
pub struct EdgeMetrics {
    requests: Family<Labels<2>, Counter>,
    latency: Family<Labels<1>, Histogram, fn() -> Histogram>,
    refusals: Family<Labels<1>, Counter>,
    /// By [`Reason`], in the order of its variants.
    refusals_by_reason: Vec<Counter>,
    /// Limited by the number of routes in the route table.
    routes: RwLock<HashMap<Box<str>, Arc<RouteMetrics>>>,
}

struct RouteMetrics {
    latency: Histogram,
    by_status: Box<[OnceLock<Counter>]>,
}

impl Default for EdgeMetrics {
    fn default() -> Self {
        let refusals = Family::<Labels<1>, Counter>::default();
        // Create all of them at the start, so that the first refusal of a kind shows as an increase.
        let refusals_by_reason = Reason::VARIANTS
            .iter()
            .map(|reason| refusals.get_or_create_owned(&[("reason", reason.name().to_owned())]))
            .collect();
        Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS_SECS)),
            refusals,
            refusals_by_reason,
            routes: RwLock::default(),
        }
    }
}

impl EdgeMetrics {
    /// Counts an answered request. `route` is the pattern that it matched.
    pub fn count(&self, route: Option<&str>, status: u16, reason: Option<Reason>, latency: Duration) {
        let name = route.unwrap_or(NO_ROUTE);
        let route = self.route(name);
        route.latency.observe(latency.as_secs_f64());
        if let Some(counter) =
            status.checked_sub(STATUS_MIN).and_then(|at| route.by_status.get(usize::from(at)))
        {
            let make = || {
                self.requests
                    .get_or_create_owned(&[("route", name.to_owned()), ("status", status.to_string())])
            };
            counter.get_or_init(make).inc();
        }
        if let Some(counter) = reason.and_then(|reason| self.refusals_by_reason.get(reason as usize)) {
            counter.inc();
        }
    }

    /// Creates the series that alerts watch with the value 0. If a series begins with its first count,
    /// Prometheus sees no increase.
    pub(super) fn foresee<'a>(&self, routes: impl Iterator<Item = &'a str>) {
        for route in routes.chain([NO_ROUTE]) {
            for status in FAULTS {
                drop(
                    self.requests
                        .get_or_create(&[("route", route.to_owned()), ("status", status.to_owned())]),
                );
            }
        }
    }

    fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.unwrap_or_else(|| {
            let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
            let route = routes.entry(name.into()).or_insert_with(|| {
                Arc::new(RouteMetrics {
                    latency: self.latency.get_or_create_owned(&[("route", name.to_owned())]),
                    by_status: (0..STATUSES).map(|_| OnceLock::new()).collect(),
                })
            });
            Arc::clone(route)
        })
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from a request's head to its answer",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register("refusals", "Calls refused, by the exact reason", self.refusals.clone());
    }
}
