//! A real Prometheus that scrapes a world's proxy by the configuration that ships, only more often.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use http::Version;
use regex::Regex;
use serde_json::Value;

use super::World;
use super::client::{Ask, Connection};
use super::ports::free_address;
use super::program::Program;

pub struct Prometheus<'a> {
    world: &'a World,
    address: SocketAddr,
    _program: Program,
}

impl<'a> Prometheus<'a> {
    /// Both files as they ship, but for the proxy's address and the times, which are too long for a story.
    pub fn start(world: &'a World, config: &Path, rules: &str) -> Self {
        let (folder, address) = (world.folder().join("prometheus"), free_address());
        fs::create_dir(&folder).expect("a folder for Prometheus");
        let config = fs::read_to_string(config).expect("its configuration");
        let config = replaced(&config, r"(scrape|evaluation)_interval: \w+", "${1}_interval: 200ms");
        let config = replaced(&config, r"127\.0\.0\.1:9900", &world.admin.to_string());
        fs::write(folder.join("prometheus.yml"), config).expect("its configuration");
        let rules = replaced(rules, r"(?m)^( +for:) \w+$", "$1 1s");
        fs::write(folder.join("pointsman.rules.yml"), rules).expect("its rules");
        let mut command = Command::new("prometheus");
        command.current_dir(&folder).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]);
        command.arg(format!("--web.listen-address={address}"));
        let prometheus = Self { world, address, _program: Program::start(&mut command, &folder, "prometheus") };
        world.eventually("Prometheus is ready", || prometheus.get("/-/ready").is_ok());
        prometheus
    }

    /// The result of a query, which has to be one that Prometheus understands.
    pub fn ask(&self, query: &str) -> Vec<Value> {
        let mut escaped = String::new();
        query.bytes().for_each(|byte| write!(escaped, "%{byte:02X}").expect("text can be written to"));
        let answer = self.get(&format!("/api/v1/query?query={escaped}")).unwrap_or_else(|error| panic!("{query}: {error}"));
        answer["data"]["result"].as_array().expect("a list of series").clone()
    }

    /// Of a query that has one series, or none yet.
    pub fn value(&self, query: &str) -> Option<f64> {
        let found = self.ask(query);
        assert!(found.len() < 2, "{query}: {found:?}");
        found.first().map(|series| series["value"][1].as_str().and_then(|said| said.parse().ok()).expect("a number"))
    }

    /// Names of the alerts that fire.
    pub fn firing(&self) -> BTreeSet<String> {
        let alerts = self.ask(r#"ALERTS{alertstate="firing"}"#);
        alerts.iter().map(|alert| alert["metric"]["alertname"].as_str().expect("a name").to_owned()).collect()
    }

    pub fn n_rules(&self, kind: &str) -> usize {
        let answer = self.get("/api/v1/rules").unwrap_or_else(|error| panic!("{error}"));
        let groups = answer["data"]["groups"].as_array().expect("a list of groups");
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        rules.filter(|rule| rule["type"] == kind).count()
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        let ask = Ask::get(path).host(&self.address.to_string());
        let answer = async { Connection::open(self.address, Version::HTTP_11).await?.ask(ask).await };
        let answer = self.world.handle().block_on(answer)?;
        match answer.status {
            200 => Ok(serde_json::from_slice(&answer.body).unwrap_or_default()),
            status => Err(format!("{status}: {}", answer.text())),
        }
    }
}

fn replaced(text: &str, pattern: &str, with: &str) -> String {
    let pattern = Regex::new(pattern).expect("a pattern");
    assert!(pattern.is_match(text), "{pattern} is nowhere in what ships");
    pattern.replace_all(text, with).into_owned()
}
