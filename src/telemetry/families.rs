//! Every metric there is: name, kind, labels, and what it says. Their public reference is `docs/metrics.md`.

/// One metric family. The unit is the end of its name, as everywhere in Prometheus.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The name ends in `_total`.
    Counter,
    Gauge,
    /// Of durations; the name ends in `_seconds`.
    Histogram,
    /// Always 1, what it says is in its labels; the name ends in `_info`.
    Info,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub const $id: Family = Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// In the order in which they are shown.
        pub const ALL: &[&Family] = &[$(&$id),*];
    };
}

families! {
    BUILD_INFO = Info "pointsman_build_info" ["version", "revision"]
        "The program that runs.";
    HTTP_REQUESTS = Counter "pointsman_http_requests_total" ["service", "route", "code_class"]
        "Finished requests by the class of the status sent to the client.";
    RATE_LIMITED = Counter "pointsman_rate_limited_total" ["service", "route", "mode"]
        "Requests over the rate of their route.";
    HTTP_REQUEST_SECONDS = Histogram "pointsman_http_request_seconds" ["service"]
        "Whole requests, as the client saw them.";
    UPSTREAM_REQUESTS = Counter "pointsman_upstream_requests_total" ["service", "instance", "outcome"]
        "Finished attempts by how they ended.";
    UPSTREAM_SECONDS = Histogram "pointsman_upstream_seconds" ["service"]
        "Attempts, from choosing the instance to the head of its response.";
    UPSTREAM_IN_FLIGHT = Gauge "pointsman_upstream_in_flight" ["service", "instance"]
        "Requests that an instance is working on.";
    RETRIES = Counter "pointsman_retries_total" ["service", "cause"]
        "Further attempts by why they were needed.";
    RETRIES_DENIED = Counter "pointsman_retries_denied_total" ["service"]
        "Retries that the service's budget did not allow.";
    QUEUE_DEPTH = Gauge "pointsman_queue_depth" ["service"]
        "Requests that wait for their turn.";
    OVERFLOW = Counter "pointsman_overflow_total" ["service"]
        "Requests refused because too many ran and waited, or because they had waited long enough.";
    INSTANCES = Gauge "pointsman_instances" ["service", "state"]
        "Instances that are known, by what becomes of them.";
    EJECTIONS = Counter "pointsman_ejections_total" ["service", "cause"]
        "Instances taken out for a while because of real requests.";
    EJECTIONS_SKIPPED = Counter "pointsman_ejections_skipped_total" ["service"]
        "Times an instance stayed in though it failed, because too many were out or it was the last.";
    PANIC_ACTIVE = Gauge "pointsman_panic_active" ["service"]
        "1 while so few instances are well that all are used that can be reached.";
    SLOW_START_ACTIVE = Gauge "pointsman_slow_start_active" ["service"]
        "Instances that get less than their weight because they are new, or back.";
    LATENCY_OUTLIERS = Counter "pointsman_latency_outliers_total" ["service"]
        "Times an instance was found far slower than the others.";
    LATENCY_OUTLIERS_ACTIVE = Gauge "pointsman_latency_outliers_active" ["service"]
        "Instances that get less than their weight because they are far slower than the others.";
    REGISTRY_PROTECTION_ACTIVE = Gauge "pointsman_registry_protection_active" ["service"]
        "1 while instances are kept that vanished from the registry together.";
    REGISTRY_LIMBO_INSTANCES = Gauge "pointsman_registry_limbo_instances" ["service"]
        "Instances that are kept though the registry has them no more.";
    PROBES = Counter "pointsman_probes_total" ["service", "result"]
        "Finished probes of a service's instances by how they ended.";
    PROBE_SECONDS = Histogram "pointsman_probe_seconds" ["service"]
        "Probes, from connecting to the end of the answer.";
    PROBE_HOLDS = Counter "pointsman_probe_holds_total" ["service"]
        "Times an instance was held down for a while because its probes' verdict turned too often.";
    PROBE_LATENESS = Histogram "pointsman_probe_lateness_seconds" []
        "How long after they were due probes began.";
    HTTP1_REQUESTS = Counter "pointsman_http1_requests_total" ["engine"]
        "HTTP/1 requests by the engine that did them.";
    PROXY_HEADERS = Counter "pointsman_proxy_headers_total" ["result"]
        "Headers of the PROXY protocol by what came of them.";
    HTTP2_CUTS = Counter "pointsman_http2_cuts_total" ["cause"]
        "HTTP/2 connections, and streams that nobody read, that were cut, by what was too much or too slow.";
    CONNECTIONS = Gauge "pointsman_connections" ["listener"]
        "Open client connections.";
    LIMITS = Counter "pointsman_limits_total" ["limit"]
        "Times that a limit of what clients may do has acted.";
    RATE_DISPLACED = Counter "pointsman_rate_displaced_total" []
        "Clients that rate limits forgot before they had their whole allowance again, for want of room.";
    BYTES = Counter "pointsman_bytes_total" ["direction"]
        "Bytes received from clients and sent to them, without those of TLS.";
    DRAINS_ACTIVE = Gauge "pointsman_drains_active" []
        "Instances that drain, are in maintenance or have left while requests at them still run.";
    DRAIN_FORCED_CLOSES = Counter "pointsman_drain_forced_closes_total" []
        "Connections to instances that were cut because the time of a drain was over.";
    UPGRADES = Counter "pointsman_upgrades_total" ["result"]
        "Upgrades of the program: this process took over from another, or another was refused to take over from it";
    TLS_HANDSHAKES = Counter "pointsman_tls_handshakes_total" ["version", "result"]
        "TLS handshakes of clients by how they ended.";
    CERTIFICATE_EXPIRY = Gauge "pointsman_certificate_expiry_timestamp_seconds" ["name"]
        "When a certificate for clients expires, since 1970.";
    CERTIFICATE_FILES_REJECTED = Gauge "pointsman_certificate_files_rejected" []
        "Certificate files whose present content cannot be used.";
    ACME_RENEWER = Gauge "pointsman_acme_renewer" []
        "1 while this proxy is the one that orders certificates.";
    ACME_ORDERS = Counter "pointsman_acme_orders_total" ["result"]
        "Orders that this proxy placed with the ACME directory by how they ended.";
    ACME_FAILURES = Gauge "pointsman_acme_failures" ["name"]
        "Orders for a certificate that have failed in a row, whoever placed them.";
    ACME_NEXT_ORDER = Gauge "pointsman_acme_next_order_timestamp_seconds" ["name"]
        "When a certificate is ordered next, since 1970.";
    ACME_CHALLENGES = Counter "pointsman_acme_challenges_total" ["kind"]
        "Challenges that this proxy answered, whoever placed the order.";
    ADMIN_UNAUTHORIZED = Counter "pointsman_admin_unauthorized_total" ["reason"]
        "Requests to the admin endpoint that were refused for want of a token.";
    REGISTRY_CONNECTED = Gauge "pointsman_registry_connected" []
        "1 while the registry answers.";
    REGISTRY_APPLIED_REVISION = Gauge "pointsman_registry_applied_revision" []
        "The registry's revision that requests are decided by.";
    REGISTRY_LAST_EVENT_AGE = Gauge "pointsman_registry_last_event_age_seconds" []
        "Time since the registry last said something about a declared record.";
    REGISTRY_APPLY_SECONDS = Histogram "pointsman_registry_apply_seconds" []
        "From taking an event to the snapshot that holds it.";
    REGISTRY_PROPAGATION_SECONDS = Histogram "pointsman_registry_propagation_seconds" []
        "From receiving a change to the snapshot that holds it.";
    REGISTRY_EVENTS = Counter "pointsman_registry_events_total" ["kind"]
        "Records of the registry that were new, different or gone.";
    REGISTRY_REJECTED_RECORDS = Gauge "pointsman_registry_rejected_records" []
        "Records whose present value cannot be used.";
    REGISTRY_ADDRESSES_REFUSED = Counter "pointsman_registry_addresses_refused_total" ["source"]
        "Addresses that instances of the registry may not have.";
    REGISTRY_RELISTS = Counter "pointsman_registry_relists_total" ["reason"]
        "Times everything was listed anew, by why.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" []
        "Processor time used, by the program and for it.";
    PROCESS_RESIDENT = Gauge "process_resident_memory_bytes" []
        "Memory in use.";
    PROCESS_VIRTUAL = Gauge "process_virtual_memory_bytes" []
        "Address space in use.";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" []
        "Open file descriptors.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" []
        "File descriptors that may be open.";
    PROCESS_THREADS = Gauge "process_threads" []
        "Threads of the operating system.";
    PROCESS_START_TIME = Gauge "process_start_time_seconds" []
        "When the program started, since 1970.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// `NAME KIND LABELS` of every row that begins with a metric.
    fn documented() -> Vec<String> {
        let rows = include_str!("../../docs/metrics.md").lines().filter(|line| line.starts_with("| `"));
        let cells = rows.map(|row| row.split('|').skip(1).take(3).map(|c| c.trim().replace(['`', ','], "")).collect::<Vec<_>>());
        cells.map(|cells| cells.join(" ").trim_end().to_owned()).collect()
    }

    #[test]
    fn the_reference_lists_exactly_the_metrics_there_are() {
        let show = |f: &&Family| format!("{} {} {}", f.name, f.kind.as_str(), f.labels.join(" ")).trim_end().to_owned();
        let (told, documented) = (ALL.iter().map(show).collect::<BTreeSet<_>>(), documented());
        let documented = BTreeSet::from_iter(documented);
        let differing: Vec<_> = told.symmetric_difference(&documented).collect();
        assert!(differing.is_empty(), "only in one of the program and docs/metrics.md: {differing:#?}");
    }
}
