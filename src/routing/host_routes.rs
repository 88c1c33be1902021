//! The routes of one host, indexed so that a request looks at few of them however many there are.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Fields, Question, Route, all, text};
use crate::model::{FieldMatch, PathMatch};

/// Levels of equal priority, the highest first.
#[derive(Debug, Default)]
pub struct HostRoutes {
    levels: Vec<Level>,
}

/// Within each list, the route to prefer comes first.
#[derive(Debug, Default)]
struct Level {
    priority: i32,
    exact: HashMap<Arc<str>, Vec<Arc<Route>>, foldhash::fast::RandomState>,
    prefix: HashMap<Arc<str>, Vec<Arc<Route>>, foldhash::fast::RandomState>,
    regex: Vec<(regex::Regex, Arc<Route>)>,
    any: Vec<Arc<Route>>,
}

impl HostRoutes {
    pub fn new(mut routes: Vec<Arc<Route>>) -> Self {
        routes.sort_by(|a, b| {
            let key = |r: &Route| (std::cmp::Reverse(r.spec.priority), std::cmp::Reverse(conditions(r)), r.origin);
            key(a).cmp(&key(b)).then_with(|| a.spec.name.cmp(&b.spec.name))
        });
        let mut levels: Vec<Level> = Vec::new();
        for route in routes {
            let priority = route.spec.priority;
            if levels.last().is_none_or(|l| l.priority != priority) {
                levels.push(Level { priority, ..Level::default() });
            }
            if let Some(level) = levels.last_mut() {
                level.add(route);
            }
        }
        Self { levels }
    }

    pub fn find(&self, question: &Question<'_>) -> Option<&Arc<Route>> {
        self.levels.iter().find_map(|level| level.find(question))
    }

    pub fn priority_max(&self) -> i32 {
        self.levels.first().map_or(i32::MIN, |level| level.priority)
    }

    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.levels.iter().flat_map(|l| {
            let by_path = l.exact.values().chain(l.prefix.values()).flatten();
            by_path.chain(l.regex.iter().map(|(_, r)| r)).chain(&l.any)
        })
    }
}

impl Level {
    fn add(&mut self, route: Arc<Route>) {
        match &route.spec.path {
            PathMatch::Exact(path) => self.exact.entry(path.clone()).or_default().push(route),
            PathMatch::Prefix(prefix) if &**prefix != "/" => self.prefix.entry(prefix.clone()).or_default().push(route),
            PathMatch::Regex(regex) => self.regex.push((regex.clone(), route)),
            PathMatch::Any | PathMatch::Prefix(_) => self.any.push(route),
        }
    }

    fn find(&self, question: &Question<'_>) -> Option<&Arc<Route>> {
        let path = question.path;
        let first = |routes: &'_ Vec<Arc<Route>>| routes.iter().position(|r| meets(r, question));
        let pick = |routes| first(routes).map(|at| &routes[at]);
        if let Some(found) = (!self.exact.is_empty()).then(|| self.exact.get(path)).flatten().and_then(pick) {
            return Some(found);
        }
        if !self.prefix.is_empty() {
            let ends = std::iter::once(path.len()).chain(path.rmatch_indices('/').map(|(at, _)| at));
            let mut prefixes = ends.filter_map(|end| self.prefix.get(&path[..end]));
            if let Some(found) = prefixes.find_map(pick) {
                return Some(found);
            }
        }
        let by_regex = self.regex.iter().find(|(regex, route)| regex.is_match(path) && meets(route, question));
        by_regex.map(|(_, route)| route).or_else(|| pick(&self.any))
    }
}

fn conditions(route: &Route) -> usize {
    route.spec.headers.len() + route.spec.query.len() + usize::from(!route.spec.methods.is_empty())
}

fn meets(route: &Route, question: &Question<'_>) -> bool {
    let spec = &route.spec;
    (spec.methods.is_empty() || spec.methods.contains(question.method))
        && spec.headers.iter().all(|field| header_meets(field, question.headers))
        && spec.query.iter().all(|field| query_meets(field, question.query))
}

/// A header that comes several times meets a condition if one of its values does.
fn header_meets(field: &FieldMatch, headers: &dyn Fields) -> bool {
    all(headers, &field.name).any(|v| text(v).is_some_and(|v| field.value.matches(v)))
}

/// Compared as they stand in the target, percent-encoding included.
fn query_meets(field: &FieldMatch, query: &str) -> bool {
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        name == field.name && field.value.matches(value)
    })
}
