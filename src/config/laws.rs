//! What must hold for any text of a configuration file (see `crate::fuzzing`).

use super::{Config, Layers, Problems, load};
use crate::model::RouteSpec;
use crate::wire::{parse_policy, parse_route, policy_json, route_json};

/// The bytes are the file. What it says of routes and policies means the same as the same said in the registry.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let n_lines = text.matches('\n').count() + 1;
    match load::load_text(text, &Layers::default()) {
        Ok((config, warnings)) => {
            check_problems(&warnings, n_lines);
            check_records(&config);
        }
        Err(problems) => {
            assert!(problems.list.iter().len() > 0, "refused without a reason");
            check_problems(&problems, n_lines);
        }
    }
}

/// Whether `check` would find nothing wrong, the files aside that a listener's TLS names.
pub fn file_is_accepted(text: &str) -> Result<(), Vec<String>> {
    let Err(problems) = load::load_text(text, &Layers::default()) else { return Ok(()) };
    let of_files = |path: &str| path.starts_with("listener[") && path.contains("].tls");
    let said: Vec<String> = problems.list.iter().filter(|p| !of_files(&p.path)).map(ToString::to_string).collect();
    if said.is_empty() { Ok(()) } else { Err(said) }
}

fn check_problems(problems: &Problems, n_lines: usize) {
    for problem in &problems.list {
        assert!(problem.line.is_none_or(|line| (1..=n_lines).contains(&line)), "{problem} is in no line of {n_lines}");
        assert!(!problem.message.is_empty() && !problem.message.contains('\n'), "not one line: {problem:?}");
    }
}

fn check_records(config: &Config) {
    assert!(!config.listeners.is_empty());
    for route in &config.routes {
        let written = route_json(route).to_string();
        let again: Option<RouteSpec> = parse_route(&route.name, written.as_bytes()).ok().map(|parsed| parsed.value);
        assert_eq!(again.as_ref(), Some(route), "{written}");
    }
    for policy in config.services.values().filter_map(|service| service.policy.as_ref()) {
        let written = policy_json(policy).to_string();
        let again = parse_policy(written.as_bytes()).ok().map(|parsed| parsed.value);
        assert_eq!(again.as_ref(), Some(policy), "{written}");
    }
}
