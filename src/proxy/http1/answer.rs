//! Answers of ours as HTTP/1.1 messages.

use http::Method;

use super::fields::FieldList;
use super::request::Request;
use crate::proxy::forward::{self, FieldsMut};
use crate::proxy::reply::Refusal;

/// Head and body of the answer to a refused request.
pub fn write(request: &Request, refusal: &Refusal, hsts: Option<&str>) -> (Vec<u8>, Vec<u8>) {
    let reply = refusal.reply(&request.head, &request.arrival.request_id);
    let mut fields = FieldList::of(std::iter::empty());
    reply.write_fields(&mut fields, &request.arrival.request_id);
    if refusal.is_of_route() {
        request.edit_response(&mut fields, hsts);
    } else {
        forward::stay_secure(&mut fields, hsts);
    }
    if request.closes {
        fields.set("connection", b"close");
    }
    for (name, value) in request.explained(Some(refusal)) {
        fields.set(name, value.as_bytes());
    }
    let mut head = format!("HTTP/1.1 {}\r\n", reply.status).into_bytes();
    fields.write(&mut head);
    head.extend_from_slice(b"\r\n");
    let body = if request.head.method == Method::HEAD { String::new() } else { reply.body };
    (head, body.into_bytes())
}
