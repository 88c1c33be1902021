//! FLOOR 1. The JSON and TOML forms of what is declared, both directions.

use crate::model::{CertificateName, CertificateSpec, InstanceSpec, Override, RouteName, RouteSpec, ServicePolicy};

/// One thing that is wrong, or odd, in a record or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which field, as in `retry.methods[1]`; empty for the value as a whole.
    pub path: String,
    /// Counted from 1, in a file.
    pub line: Option<usize>,
    /// What was said and what would be right.
    pub message: String,
}

/// A record that can be used, and what was odd about it (unknown fields: an old proxy must survive a new writer).
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed<T> {
    pub value: T,
    pub warnings: Vec<Problem>,
}

pub type ParseResult<T> = Result<Parsed<T>, Vec<Problem>>;

pub fn parse_instance(_value: &[u8]) -> ParseResult<InstanceSpec> {
    Err(Vec::new())
}

pub fn parse_override(_value: &[u8]) -> ParseResult<Override> {
    Err(Vec::new())
}

pub fn parse_policy(_value: &[u8]) -> ParseResult<ServicePolicy> {
    Err(Vec::new())
}

pub fn parse_route(_name: &RouteName, _value: &[u8]) -> ParseResult<RouteSpec> {
    Err(Vec::new())
}

pub fn parse_certificate(_name: &CertificateName, _value: &[u8]) -> ParseResult<CertificateSpec> {
    Err(Vec::new())
}
