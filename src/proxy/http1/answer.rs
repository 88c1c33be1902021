//! Answers of ours as HTTP/1.1 messages.

use http::Method;

use super::request::Request;
use crate::proxy::arrival::REQUEST_ID;
use crate::proxy::forward::HSTS;
use crate::proxy::reply::Refusal;

/// Head and body of the answer to a refused request.
pub fn write(request: &Request, refusal: &Refusal, hsts: Option<&str>) -> (Vec<u8>, Vec<u8>) {
    let reply = refusal.reply(&request.head, &request.arrival.request_id);
    let mut head = format!(
        "HTTP/1.1 {}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\n{REQUEST_ID}: {}\r\n",
        reply.status,
        reply.content_type,
        reply.body.len(),
        request.arrival.request_id
    );
    let mut field = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
    if let Some(seconds) = reply.retry_after {
        field("retry-after", &seconds.to_string());
    }
    if let Some(location) = &reply.location {
        field("location", location);
    }
    if let Some(hsts) = hsts {
        field(HSTS, hsts);
    }
    if request.closes {
        field("connection", "close");
    }
    for (name, value) in request.explained(Some(refusal)) {
        field(name, &value);
    }
    head.push_str("\r\n");
    let body = if request.head.method == Method::HEAD { String::new() } else { reply.body };
    (head.into_bytes(), body.into_bytes())
}
