//! What becomes of the directives that no other file here reads: by name, then by the family that the name belongs to.

/// The end of a directive's journey, with the words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Needs no counterpart.
    Note(&'static str),
    /// Why it is missing, and what to do instead.
    Lost(&'static str, &'static str),
    /// Keeps requests out, so what it guards is held shut. What to do instead.
    Guard(&'static str),
    /// Answers requests itself. Why that is missing, and what to do instead.
    Answers(&'static str, &'static str),
}

pub fn fate(name: &str) -> Fate {
    let by_name = NAMES.iter().find(|(names, _)| names.split(' ').any(|known| known == name));
    let by_family = || FAMILIES.iter().find(|(starts, _)| starts.split(' ').any(|start| name.starts_with(start)));
    by_name.or_else(by_family).map_or(UNKNOWN, |(_, fate)| *fate)
}

const UNKNOWN: Fate =
    Fate::Lost("this directive is not known to the import", "see what it did, above all whether it kept anybody out");

const NGINX_ALONE: Fate = Fate::Note("concerns nginx's own process");
const BUILT_IN: Fate = Fate::Note("Pointsman does this by itself");
const TUNING: Fate = Fate::Note("tunes nginx's buffers, sockets or caches; nothing here corresponds to it");
const FILES: Fate = Fate::Answers("Pointsman serves no files", "let a service of its own, or a bucket, serve them");
const OTHER_PROTOCOL: Fate =
    Fate::Answers("Pointsman speaks HTTP to instances, and no FastCGI, uwsgi, SCGI or memcached", "put an HTTP server before it");
const BODIES: Fate = Fate::Lost("Pointsman changes no bodies", "let the service do it, or whoever stands before the proxy");
const CACHE: Fate = Fate::Lost("Pointsman has no cache", "keep a cache before it, or in the service");
const HEADERS: Fate =
    Fate::Lost("is not carried over", "response_headers of the route, or let the service send what clients are to see");
const SCRIPTS: Fate = Fate::Lost("Pointsman runs no scripts", "let the service do it");

/// Names, separated by spaces, and their fate.
const NAMES: &[(&str, Fate)] = &[
    (
        "user pid daemon master_process error_log events load_module worker_rlimit_nofile worker_cpu_affinity worker_priority \
         working_directory pcre_jit timer_resolution thread_pool lock_file env worker_connections multi_accept use accept_mutex \
         debug_connection worker_aio_requests worker_rlimit_core types types_hash_max_size types_hash_bucket_size \
         server_names_hash_max_size server_names_hash_bucket_size variables_hash_max_size variables_hash_bucket_size \
         map_hash_max_size map_hash_bucket_size log_not_found log_subrequest open_log_file_cache charset server_tokens",
        NGINX_ALONE,
    ),
    (
        "sendfile sendfile_max_chunk tcp_nopush tcp_nodelay aio directio output_buffers client_header_buffer_size \
         client_body_buffer_size client_body_temp_path client_body_in_file_only client_body_in_single_buffer postpone_output \
         reset_timedout_connection lingering_close lingering_time lingering_timeout connection_pool_size request_pool_size \
         keepalive_disable keepalive_requests keepalive_time http2_max_concurrent_streams http2_chunk_size \
         http2_recv_buffer_size http2_body_preread_size http2_idle_timeout http2_recv_timeout http2_max_requests \
         proxy_buffers proxy_buffer_size proxy_busy_buffers_size proxy_temp_path proxy_temp_file_write_size \
         proxy_max_temp_file_size proxy_headers_hash_max_size proxy_headers_hash_bucket_size proxy_socket_keepalive \
         ssl_session_cache ssl_session_timeout ssl_session_tickets ssl_buffer_size ssl_early_data proxy_ssl_session_reuse \
         if_modified_since etag chunked_transfer_encoding open_file_cache open_file_cache_valid open_file_cache_min_uses \
         open_file_cache_errors resolver_timeout",
        TUNING,
    ),
    (
        "proxy_buffering proxy_request_buffering proxy_http_version http2 merge_slashes absolute_redirect underscores_in_headers \
         ignore_invalid_headers proxy_ssl_server_name resolver proxy_force_ranges",
        BUILT_IN,
    ),
    (
        "ssl_ciphers ssl_prefer_server_ciphers ssl_ecdh_curve ssl_dhparam ssl_conf_command proxy_ssl_ciphers proxy_ssl_protocols",
        Fate::Note("Pointsman offers TLS 1.2 and 1.3 with the ciphers that are good today; there is no list to keep"),
    ),
    (
        "access_log log_format",
        Fate::Note(
            "Pointsman's access log has a line of JSON, or in combined form, for each request: [log.access] says where it goes",
        ),
    ),
    (
        "real_ip_header real_ip_recursive",
        Fate::Note(
            "the client's address is taken from the PROXY header or X-Forwarded-For of proxy.trusted_proxies, from the right",
        ),
    ),
    (
        "root alias index autoindex autoindex_exact_size autoindex_localtime expires disable_symlinks",
        Fate::Note("Pointsman serves no files; where requests need them is listed by itself"),
    ),
    ("try_files random_index empty_gif flv mp4", FILES),
    ("stub_status", Fate::Answers("Pointsman's own numbers are at its admin endpoint", "scrape /metrics there")),
    (
        "deny internal auth_basic auth_request auth_jwt limit_except modsecurity secure_link",
        Fate::Guard("let the service refuse, or ask who is there before the proxy"),
    ),
    (
        "allow satisfy valid_referers auth_basic_user_file auth_request_set auth_delay modsecurity_rules_file secure_link_md5",
        Fate::Note("belongs to a directive that keeps requests out, which is listed by itself"),
    ),
    (
        "limit_conn limit_conn_zone limit_conn_status limit_conn_log_level limit_conn_dry_run",
        Fate::Lost(
            "limits of connections by key are not carried over",
            "proxy.limits.connections_per_address, for the whole proxy",
        ),
    ),
    ("limit_rate limit_rate_after", Fate::Lost("the speed of an answer is not limited", "let the service do it")),
    ("error_page", Fate::Lost("errors are answered with short JSON or text of ours", "let the service send its own error pages")),
    (
        "proxy_intercept_errors",
        Fate::Lost("an answer of an instance goes to the client as it is", "let the service send what clients are to see"),
    ),
    (
        "proxy_redirect",
        Fate::Lost("Location fields of answers are not rewritten", "let the service make them of X-Forwarded-Host and -Proto"),
    ),
    (
        "map split_clients geo geoip2",
        Fate::Lost("there are no variables", "conditions on headers and query in routes choose between services"),
    ),
    ("set", Fate::Lost("there are no variables", "name the service in the route")),
    (
        "proxy_bind",
        Fate::Lost(
            "the address that connections to instances come from is the system's to choose",
            "a rule of the system's routing table",
        ),
    ),
    (
        "proxy_method proxy_set_body proxy_pass_request_body proxy_pass_request_headers",
        Fate::Lost("requests are forwarded as they are", "let the service do it"),
    ),
    ("proxy_ignore_client_abort", Fate::Lost("a request whose client has left is ended", "let the service finish by itself")),
    (
        "ssl_stapling ssl_stapling_verify ssl_stapling_file ssl_stapling_responder",
        Fate::Lost("no OCSP answers are stapled", "nothing: authorities are giving OCSP up"),
    ),
    (
        "ssl_crl ssl_verify_depth ssl_trusted_certificate proxy_ssl_crl proxy_ssl_verify_depth",
        Fate::Lost(
            "there are no lists of revoked certificates, and no other depth of chains",
            "certificates that live for a short time",
        ),
    ),
    (
        "proxy_ssl_certificate proxy_ssl_certificate_key proxy_ssl_password_file ssl_password_file",
        Fate::Lost(
            "certificates of our own for instances, and encrypted keys, are not carried over",
            "keys that are not encrypted, readable by the proxy alone",
        ),
    ),
    ("stream mail", Fate::Lost("Pointsman proxies HTTP only", "keep nginx or HAProxy for these ports")),
    (
        "return rewrite if rewrite_log uninitialized_variable_warn break",
        Fate::Lost("is not carried over", "let the service do it"),
    ),
    ("msie_padding msie_refresh recursive_error_pages port_in_redirect server_name_in_redirect", TUNING),
];

/// Beginnings of names, separated by spaces, and their fate.
const FAMILIES: &[(&str, Fate)] = &[
    ("fastcgi_pass uwsgi_pass scgi_pass memcached_pass", OTHER_PROTOCOL),
    (
        "fastcgi_ uwsgi_ scgi_ memcached_",
        Fate::Note("belongs to a protocol that Pointsman does not speak; what is passed by it is listed by itself"),
    ),
    ("proxy_cache proxy_store proxy_no_cache proxy_ignore_headers", CACHE),
    ("proxy_pass_header proxy_cookie_ add_trailer more_", HEADERS),
    (
        "gzip gunzip brotli zstd",
        Fate::Lost("Pointsman compresses nothing", "let the service compress, or whoever stands before the proxy"),
    ),
    ("sub_filter addition_ xslt_ image_filter ssi add_before_body add_after_body", BODIES),
    ("access_by_lua auth_jwt_ naxsi SecRules", Fate::Guard("let the service refuse, or ask who is there before the proxy")),
    ("content_by_lua js_content perl echo", Fate::Answers("Pointsman runs no scripts", "let a service answer")),
    (
        "lua_ js_ perl_ init_by_lua init_worker_by_lua set_by_lua rewrite_by_lua header_filter_by_lua body_filter_by_lua log_by_lua",
        SCRIPTS,
    ),
    ("opentracing otel_ opentelemetry", Fate::Note("traceparent is continued or started by Pointsman")),
    ("mirror", Fate::Lost("requests are not mirrored", "let the service do it")),
    ("grpc_", Fate::Note("its counterpart is the policy of the service")),
    ("dav_ create_full_put_path", FILES),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_before_families_and_strangers_are_lost() {
        assert_eq!(fate("sendfile"), TUNING);
        assert_eq!(fate("gzip_types"), fate("gzip"));
        assert!(matches!(fate("fastcgi_pass"), Fate::Answers(..)) && matches!(fate("fastcgi_param"), Fate::Note(_)));
        assert!(matches!(fate("access_by_lua_block"), Fate::Guard(_)));
        assert_eq!(fate("frobnicate"), UNKNOWN);
    }

    #[test]
    fn no_name_stands_twice() {
        let mut names: Vec<&str> = NAMES.iter().flat_map(|(names, _)| names.split_whitespace()).collect();
        names.sort_unstable();
        let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }
}
