//! `/`: the live page. One file without anything from elsewhere, so it works where there is no way out.

use http::HeaderValue;
use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};

use super::Reply;
use super::body::Body;
use super::reply::reply;

pub fn page() -> Reply {
    // Each answer has its own, so that no text that found its way into the page could run.
    let nonce = format!("{:032x}", fastrand::u128(..));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let text = include_str!("page.html").replace("{{nonce}}", &nonce);
    let mut reply = reply("text/html; charset=utf-8", Body::Whole(text.into()));
    if let Ok(policy) = HeaderValue::try_from(policy) {
        reply.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    reply.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply
}
