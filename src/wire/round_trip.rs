//! What we write, we read back: every spec that our types can hold survives its record. And no bytes at all make a
//! reader panic.

use std::num::NonZeroU16;
use std::time::{Duration, SystemTime};

use proptest::option::of;
use proptest::prelude::*;

use crate::model::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_instance_survives_its_record(spec in instance()) {
        prop_assert_eq!(reread(&instance_json(&spec), parse_instance), spec);
    }

    #[test]
    fn an_override_survives_its_record(value in an_override()) {
        prop_assert_eq!(reread(&override_json(&value), parse_override), value);
    }

    #[test]
    fn a_policy_survives_its_record(policy in policy()) {
        prop_assert_eq!(reread(&policy_json(&policy), parse_policy), policy);
    }

    #[test]
    fn a_route_survives_its_record(route in route()) {
        prop_assert_eq!(reread(&route_json(&route), |value| parse_route(&route.name, value)), route);
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in r#"(\{?("(v|address|probe|until|hosts|tls|headers)":)?[\PC\[\]{},:"0-9-]{0,20}\}?){0,4}"#) {
        let value = text.as_bytes();
        let _ = (parse_instance(value), parse_foreign_instance(value), parse_override(value), parse_policy(value));
        let _ = parse_route(&RouteName::parse("r").unwrap(), value);
        let _ = parse_certificate(&CertificateName::parse("c").unwrap(), value);
    }
}

#[track_caller]
fn reread<T: std::fmt::Debug>(record: &serde_json::Value, parse: impl Fn(&[u8]) -> ParseResult<T>) -> T {
    let parsed = parse(record.to_string().as_bytes()).unwrap_or_else(|problems| panic!("{record}: {problems:?}"));
    assert!(parsed.warnings.iter().all(|w| !w.message.contains("unknown")), "{record}: {:?}", parsed.warnings);
    parsed.value
}

fn instance() -> impl Strategy<Value = InstanceSpec> {
    let address = "([a-z]{1,9}|10\\.0\\.0\\.[1-9]|\\[2001:db8::[1-9]\\]):[1-9][0-9]{0,3}";
    let probe = (of("/[a-z?=&]{0,9}"), of(1..=u16::MAX));
    (
        address,
        any::<u16>(),
        lifecycle(),
        any::<u8>(),
        of("[a-z]{1,5}"),
        proptest::sample::select(Protocol::ALL.to_vec()),
        any::<u32>(),
        probe,
        proptest::collection::btree_map(".{0,5}", ".{0,5}", 0..4),
    )
        .prop_map(|(address, weight, lifecycle, tier, zone, protocol, max_requests, (path, port), metadata)| InstanceSpec {
            address: Address::parse(&address).unwrap(),
            weight,
            lifecycle,
            tier,
            zone: zone.map(Into::into),
            protocol,
            max_requests,
            probe: ProbeTarget { path, port: port.and_then(NonZeroU16::new) },
            metadata,
        })
}

fn lifecycle() -> impl Strategy<Value = Lifecycle> {
    proptest::sample::select(Lifecycle::ALL.to_vec())
}

fn an_override() -> impl Strategy<Value = Override> {
    let until = (0..4_000_000_000u64, 0..1_000_000_000u32).prop_map(|(s, n)| SystemTime::UNIX_EPOCH + Duration::new(s, n));
    (of(lifecycle()), of(any::<u16>()), of(until)).prop_map(|(lifecycle, weight, until)| Override { lifecycle, weight, until })
}

/// Longer than a day is left out only because the fields that must be shorter than others would then reject most.
fn some_time() -> impl Strategy<Value = Duration> {
    (0..86_400u64, 0..1_000_000_000u32).prop_map(|(s, n)| Duration::new(s, n))
}

fn positive() -> impl Strategy<Value = Duration> {
    some_time().prop_map(|d| d + Duration::from_nanos(1))
}

fn policy() -> impl Strategy<Value = ServicePolicy> {
    let hash_on = proptest::sample::select(vec![
        HashOn::Header("x-user".into()),
        HashOn::Cookie("s".into()),
        HashOn::Query("q:1".into()),
        HashOn::Path,
        HashOn::Client,
    ]);
    let balance = (proptest::sample::select(Balance::ALL.to_vec()), of(hash_on), of(101..=1000u16));
    let panic = prop_oneof![(0..=100u8).prop_map(Panic::Below), Just(Panic::Fail)];
    let limits = (1..1_000_000u32, 0..1_000_000u32, some_time()).prop_map(|(in_flight, queue, queue_wait)| LimitPolicy {
        in_flight,
        queue,
        queue_wait,
    });
    let protection =
        (0..=100u8, positive(), some_time()).prop_map(|(percent, window, limbo)| ProtectionPolicy { percent, window, limbo });
    let sticky = ("[a-z_]{1,9}", of(positive())).prop_map(|(cookie, ttl)| StickyPolicy { cookie, ttl });
    let ca = Just(include_str!("../../tests/certificates/ca.pem").to_owned());
    // Without an identity, whose key is never written.
    let tls = (any::<bool>(), of("[a-z]{1,9}"), of(ca)).prop_map(|(verify, server_name, ca)| UpstreamTls {
        verify,
        server_name,
        ca,
        identity: None,
    });
    let proxy_protocol = of(proptest::sample::select(ProxyProtocol::ALL.to_vec()));
    let traffic = (probe(), ejection(), retry(), timeouts(), limits, protection);
    let slow = (some_time(), of(latency_outliers()));
    (balance, traffic, slow, panic, of(sticky), (of(tls), proxy_protocol), any::<bool>()).prop_map(
        |(
            (balance, hash_on, hash_bound),
            (probe, ejection, retry, timeouts, limits, protection),
            (slow_start, latency_outliers),
            panic,
            sticky,
            (tls, proxy_protocol),
            zone_aware,
        )| {
            ServicePolicy {
                balance,
                hash_on,
                hash_bound,
                probe,
                ejection,
                retry,
                timeouts,
                slow_start,
                latency_outliers,
                panic,
                limits,
                sticky,
                protection,
                zone_aware,
                tls,
                proxy_protocol,
            }
        },
    )
}

fn probe() -> impl Strategy<Value = ProbePolicy> {
    let kind = proptest::sample::select(vec![ProbeKind::Http, ProbeKind::Tcp, ProbeKind::Grpc, ProbeKind::None]);
    let ranges = proptest::collection::vec((100..=599u16, 0..100u16).prop_map(|(a, n)| (a, (a + n).min(599))), 1..4);
    let counts = (1..1_000_000u32, 1..1_000_000u32);
    let header = |(name, value): (String, String)| (name.parse().unwrap(), value.parse().unwrap());
    let headers = proptest::collection::btree_map("x-[a-z]{1,5}", "[!-~]([ -~]{0,5}[!-~])?", 0..4)
        .prop_map(move |headers| headers.into_iter().map(header).collect());
    let host = (of("[a-z]{1,9}:80"), headers);
    (of(kind), of("/[a-z]{0,9}"), positive(), positive(), counts, ranges, of(".{1,9}"), host).prop_map(
        |(kind, path, timeout, longer, (rise, fall), ranges, body, (host, headers))| ProbePolicy {
            kind,
            path,
            interval: timeout + longer,
            timeout,
            rise,
            fall,
            expect: StatusRanges(ranges),
            body,
            host,
            headers,
        },
    )
}

fn ejection() -> impl Strategy<Value = EjectionPolicy> {
    (any::<bool>(), 1..1_000_000u32, 1..1_000_000u32, 1..=100u8, positive(), some_time(), 0..=100u8).prop_map(
        |(enabled, consecutive, connect_failures, ratio_percent, base, longer, max_percent)| EjectionPolicy {
            enabled,
            consecutive,
            connect_failures,
            ratio_percent,
            base,
            max: base + longer,
            max_percent,
        },
    )
}

fn latency_outliers() -> impl Strategy<Value = LatencyOutlierPolicy> {
    (2..=100u32, some_time(), 1..1_000_000u32, 1..=99u8)
        .prop_map(|(times, above, requests, weight_percent)| LatencyOutlierPolicy { times, above, requests, weight_percent })
}

fn retry() -> impl Strategy<Value = RetryPolicy> {
    let methods = proptest::sample::subsequence(vec![http::Method::GET, http::Method::PUT, http::Method::DELETE], 0..=3);
    (0..=10u8, 0..=100u8, 0..1000u32, of(positive()), 0..=1024 * 1024u64, methods).prop_map(
        |(attempts, budget_percent, budget_floor, per_try_timeout, buffer, methods)| RetryPolicy {
            attempts,
            budget_percent,
            budget_floor,
            per_try_timeout,
            buffer,
            methods,
        },
    )
}

fn timeouts() -> impl Strategy<Value = TimeoutPolicy> {
    (positive(), positive(), positive(), positive(), some_time()).prop_map(
        |(connect, response_head, idle, upgraded_idle, drain)| TimeoutPolicy {
            connect,
            response_head,
            idle,
            upgraded_idle,
            drain,
        },
    )
}

fn route() -> impl Strategy<Value = RouteSpec> {
    let host = "(\\*\\.)?[a-z]{1,5}\\.example".prop_map(|h| HostPattern::parse(&h).unwrap());
    let path = prop_oneof![
        Just(PathMatch::Any),
        "/[a-zé%/]{0,9}".prop_map(|p| PathMatch::Exact(p.into())),
        "(/[a-z]{1,5}){1,3}".prop_map(|p| PathMatch::Prefix(p.into())),
        Just(PathMatch::Prefix("/".into())),
        "\\^/[a-z]{1,5}\\$".prop_map(|p| PathMatch::Regex(regex::Regex::new(&p).unwrap())),
    ];
    let methods = proptest::sample::subsequence(vec![http::Method::GET, http::Method::POST], 0..=2);
    (
        proptest::collection::vec(host, 0..3),
        path,
        methods,
        proptest::collection::vec(condition(), 0..4),
        proptest::collection::vec(condition(), 0..4),
        any::<i32>(),
        of(rate_limit()),
        (action(), rewrite(), field_edits(), field_edits()),
    )
        .prop_map(
            |(
                hosts,
                path,
                methods,
                headers,
                query,
                priority,
                rate_limit,
                (action, rewrite, request_headers, response_headers),
            )| {
                let mut route = RouteSpec {
                    hosts,
                    path,
                    methods,
                    headers,
                    query,
                    priority,
                    rate_limit,
                    action,
                    rewrite,
                    request_headers,
                    response_headers,
                    ..RouteSpec::to(RouteName::parse("r").unwrap(), ServiceName::parse("api").unwrap())
                };
                // What does not go together is no route.
                if matches!(route.path, PathMatch::Exact(_) | PathMatch::Regex(_)) {
                    route.rewrite.path = route.rewrite.path.filter(|rewrite| !matches!(rewrite, PathRewrite::Prefix(_)));
                }
                match route.action {
                    Action::Forward(_) => {}
                    Action::Redirect(_) => (route.rewrite.host, route.request_headers) = (None, FieldEdits::default()),
                    Action::Respond(_) => (route.rewrite, route.request_headers) = (Rewrite::default(), FieldEdits::default()),
                }
                route
            },
        )
}

fn action() -> impl Strategy<Value = Action> {
    let status = proptest::sample::select(vec![301, 302, 303, 307, 308]);
    let to = "(https?://[a-z]{1,5}\\.example|\\{scheme\\}://\\{host\\})(/[a-z]{0,3}|\\{path\\}(\\{\\?query\\})?)?";
    prop_oneof![
        Just(Action::Forward(ServiceName::parse("api").unwrap())),
        (status, to).prop_map(|(status, to)| Action::Redirect(Redirect { status, to: Template::parse(&to).unwrap() })),
        (200..=599u16, ".{0,9}", "[a-z]{1,5}/[a-z]{1,5}").prop_map(|(status, body, content_type)| {
            let body = if matches!(status, 204 | 205 | 304) { String::new() } else { body };
            Action::Respond(std::sync::Arc::new(Respond { status, body, content_type: content_type.try_into().unwrap() }))
        }),
    ]
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    let regex = ("\\^/([a-z]{0,3}|\\(\\.\\*\\))", "/[a-z]{0,3}(\\$\\$|\\$0|\\?a=\\$\\{0\\})?").prop_map(|(pattern, to)| {
        let pattern = regex::Regex::new(&pattern).unwrap();
        PathRewrite::Regex { to: Substitution::parse(&to, &pattern).unwrap(), pattern }
    });
    let path = prop_oneof![
        "(/[a-z]{1,3}){0,2}".prop_map(|prefix| PathRewrite::Prefix(prefix.into())),
        "/[a-z%2]{0,3}"
            .prop_filter("is a path", |path| plain_path(path).is_ok())
            .prop_map(|path| PathRewrite::Whole(path.into())),
        regex,
    ];
    let host = "[a-z]{1,5}\\.example(:8080)?".prop_map(|host| host.try_into().unwrap());
    (of(path), of(host)).prop_map(|(path, host)| Rewrite { path, host })
}

fn field_edits() -> impl Strategy<Value = FieldEdits> {
    let value = "[!-z]{1,3}( [a-z]{1,3})?(\\{\\{|\\{client_address\\}|\\{\\?query\\})?";
    let edits = proptest::collection::btree_map("x-[a-z]{1,3}", value, 0..3).prop_map(|edits| {
        let edit = |(name, value): (String, String)| FieldEdit {
            name: name.try_into().unwrap(),
            value: Template::parse(&value).unwrap(),
        };
        edits.into_iter().map(edit).collect::<Vec<_>>()
    });
    let names = proptest::collection::vec("x-[a-z]{1,3}".prop_map(|name| name.try_into().unwrap()), 0..3);
    (edits.boxed(), names).prop_flat_map(|(set, remove)| {
        let again = set.clone();
        Just(FieldEdits { set, add: again, remove })
    })
}

fn rate_limit() -> impl Strategy<Value = RateLimit> {
    let by = prop_oneof![Just(RateKey::ClientAddress), Just(RateKey::Route), "x-[a-z]{1,5}".prop_map(RateKey::Header)];
    (1..=1_000_000u32, 1..=60_000u64, 1..=500u32, by, any::<bool>()).prop_map(|(requests, ms, burst, by, dry_run)| RateLimit {
        requests,
        per: Duration::from_millis(ms),
        burst,
        by,
        dry_run,
    })
}

fn condition() -> impl Strategy<Value = FieldMatch> {
    let value = prop_oneof![
        Just(ValueMatch::Present),
        ".{0,5}".prop_map(ValueMatch::Exact),
        "[a-z]{1,5}".prop_map(|p| ValueMatch::Regex(regex::Regex::new(&p).unwrap())),
    ];
    ("[a-z]{1,3}", value).prop_map(|(name, value)| FieldMatch { name, value })
}
