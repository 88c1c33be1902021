//! `pointsman explain`: what a proxy would do with a request, and why, without sending it.

use std::process::ExitCode;

use clap::Args;

use super::admin::{self, Admin};
use super::failure::Failure;
use super::global::{Global, block_on};
use super::{outline, print};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pointsman explain GET http://shop.example/api/cart
  pointsman explain POST https://shop.example/api/orders -H 'X-Tenant: a' -H 'Cookie: id=7'")]
pub struct ExplainArgs {
    /// GET, POST, …
    method: String,
    /// With its host: http://shop.example/api?x=1
    url: String,
    /// A header of the request; several times for several
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<String>,
}

impl ExplainArgs {
    pub fn execute(self, global: &Global) -> Result<ExitCode, Failure> {
        let admin = Admin::of(global)?;
        block_on(async {
            let answer = admin.ask(&self.path()).await?;
            if global.json {
                print::json(&answer);
            } else {
                print::out(&outline::render(&answer));
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    fn path(&self) -> String {
        let headers: String = self.headers.iter().map(|header| format!("&header={}", admin::escaped(header))).collect();
        format!("/api/v1/explain?method={}&url={}{headers}", admin::escaped(&self.method), admin::escaped(&self.url))
    }
}

fn header(said: &str) -> Result<String, String> {
    match said.split_once(':') {
        Some((name, _)) if !name.trim().is_empty() => Ok(said.to_owned()),
        _ => Err("a header is NAME: VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_request_gets_loose_in_the_query() {
        let args = ExplainArgs {
            method: "GET".into(),
            url: "http://a/é?x=1&y=2#z".into(),
            headers: vec!["X-Tenant: a&b".into(), "Cookie: id=7".into()],
        };
        assert_eq!(
            args.path(),
            "/api/v1/explain?method=GET&url=http%3A%2F%2Fa%2F%C3%A9%3Fx%3D1%26y%3D2%23z&header=X-Tenant%3A%20a%26b&header=Cookie%3A%20id%3D7"
        );
    }
}
