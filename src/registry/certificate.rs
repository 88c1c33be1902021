//! `/certificates/NAME` → a certificate that handshakes can use, or why not.

use std::time::SystemTime;

use crate::model::{Certificate, CertificateName, CertificateSource};
use crate::tls::{self, Checked, Flaw, Part, Pem};
use crate::wire::{self, ParseResult, Parsed, Problem};

/// What a command may show of a value, and what a proxy serves.
pub fn read(name: &CertificateName, value: &[u8]) -> ParseResult<Certificate> {
    let Parsed { value: spec, mut warnings } = wire::parse_certificate(name, value)?;
    let pem = Pem { chain: spec.chain.as_bytes(), key: spec.key.as_bytes() };
    let Checked { certificate, warnings: odd } =
        tls::check(CertificateSource::Registry(spec.name), pem, SystemTime::now()).map_err(problems)?;
    warnings.extend(problems(odd));
    Ok(Parsed { value: certificate, warnings })
}

fn problems(flaws: Vec<Flaw>) -> Vec<Problem> {
    let path = |part| match part {
        Part::Chain => "chain".to_owned(),
        Part::Key => "key".to_owned(),
    };
    flaws.into_iter().map(|flaw| Problem { path: path(flaw.part), line: None, message: flaw.message }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tls::samples::Sample;

    #[test]
    fn a_pair_that_does_not_match_is_refused_by_its_field() {
        let (a, b) = (Sample::of(&["a.example"]).make(), Sample::of(&["b.example"]).make());
        let name = CertificateName::parse("shop").unwrap();
        let of = |chain: &str, key: &str| read(&name, json!({"chain": chain, "key": key}).to_string().as_bytes());
        let good = of(&a.chain, &a.key).unwrap();
        assert_eq!((good.value.source.to_string(), good.warnings), ("shop".to_owned(), vec![]));
        let problems = of(&a.chain, &b.key).unwrap_err();
        assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["key"], "{problems:?}");
    }
}
