//! What of a template (Go's `text/template` with confd's functions) is an iteration over instances:
//!
//! ```text
//! upstream app { {{range getvs "/services/app/*"}} server {{.}}; {{end}} }
//! {{range $name := lsdir "/services"}} upstream {{$name}} { {{range getvs (printf "/services/%s/*" $name)}} … {{end}} } {{end}}
//! ```
//!
//! Everything else that asks etcd for something is told as what it is; nothing is executed.

use std::collections::BTreeMap;

/// An action that asks etcd, with its line.
pub enum Found {
    Instances { keys: String, service: Option<String>, values_json: bool },
    Else(&'static str),
}

pub fn found(template: &str) -> Vec<(usize, String, Found)> {
    let mut reader = Reader::default();
    let mut rest = template;
    let mut line = 1;
    while let Some((literal, tail)) = rest.split_once("{{") {
        reader.literal(literal);
        line += literal.matches('\n').count();
        let Some((action, tail)) = tail.split_once("}}") else { break };
        reader.action(line, action.trim_matches(|c: char| c == '-' || c.is_whitespace()));
        line += action.matches('\n').count();
        rest = tail;
    }
    reader.found
}

#[derive(Default)]
struct Reader {
    /// The upstream that is open, by its name, or as what an expression came to.
    upstream: Option<String>,
    /// `upstream` was the last word.
    names_next: bool,
    variables: BTreeMap<String, String>,
    /// For each open block what `.` was before it, if it changed it.
    blocks: Vec<Option<String>>,
    dot: String,
    found: Vec<(usize, String, Found)>,
}

impl Reader {
    fn literal(&mut self, text: &str) {
        let mut words = text.split_whitespace().flat_map(|word| word.split_inclusive(['{', '}'])).peekable();
        while let Some(word) = words.next() {
            if word == "upstream" {
                let name = words.next_if(|name| !name.starts_with('{'));
                self.names_next = name.is_none();
                self.upstream = name.map(|name| name.trim_end_matches('{').to_owned());
            } else if word.ends_with('}') {
                self.upstream = None;
            }
        }
    }

    fn action(&mut self, line: usize, action: &str) {
        if std::mem::take(&mut self.names_next) {
            self.upstream = Some(self.value(action).unwrap_or_default());
            return;
        }
        let (verb, subject) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
        match verb {
            "range" => self.range(line, action, subject.trim()),
            "if" | "with" => self.blocks.push(None),
            "end" => {
                if let Some(Some(dot)) = self.blocks.pop() {
                    self.dot = dot;
                }
            }
            _ if action.contains(":=") => {
                let (name, expression) = action.split_once(":=").unwrap_or_default();
                if let Some(value) = self.value(expression.trim()) {
                    self.variables.insert(name.trim().to_owned(), value);
                }
                self.json(action);
            }
            _ if ["get ", "getv ", "gets ", "getvs ", "cget", "ls "].iter().any(|ask| format!("{action} ").contains(ask)) => {
                self.say(line, action, Found::Else("a setting in etcd; only instances are read from other programs' keys"));
            }
            _ => self.json(action),
        }
    }

    fn range(&mut self, line: usize, action: &str, subject: &str) {
        let (variables, expression) = subject.split_once(":=").unwrap_or(("", subject));
        let (function, of) = expression.trim().split_once(char::is_whitespace).unwrap_or((expression.trim(), ""));
        let before = std::mem::take(&mut self.dot);
        self.blocks.push(Some(before));
        let keys = self.value(of.trim());
        match (function, keys) {
            ("lsdir" | "ls", Some(_)) => {
                if let Some(name) = variables.split(',').next_back().map(str::trim).filter(|name| name.starts_with('$')) {
                    self.variables.insert(name.to_owned(), SERVICE.to_owned());
                }
                self.dot = SERVICE.to_owned();
            }
            ("gets" | "getvs", Some(keys)) => {
                let found = self.instances(&keys);
                self.say(line, action, found);
            }
            ("gets" | "getvs" | "lsdir" | "ls", None) => {
                self.say(line, action, Found::Else("which keys these are is not known before the template is executed"));
            }
            _ => self.say(line, action, Found::Else("what it iterates over is not known before the template is executed")),
        }
    }

    fn instances(&self, keys: &str) -> Found {
        let Some(folder) = keys.strip_suffix("/*").filter(|folder| !folder.contains('*')) else {
            return Found::Else("only keys of one folder, /FOLDER/*, are a source");
        };
        let named = folder.split('/').filter(|segment| *segment == SERVICE).count();
        let whole = format!("{folder}/{{instance}}");
        match (&self.upstream, named) {
            (None, _) => Found::Else("it stands in no upstream, so these are not known to be instances"),
            (Some(name), 0) if !name.is_empty() && name != SERVICE => {
                Found::Instances { keys: whole, service: Some(name.clone()), values_json: false }
            }
            (Some(name), 1) if name == SERVICE && !folder.contains("{{") => {
                Found::Instances { keys: whole, service: None, values_json: false }
            }
            _ => Found::Else("whose instances these are is not known before the template is executed"),
        }
    }

    /// Values are taken apart as JSON: so says the last iteration.
    fn json(&mut self, action: &str) {
        if action.contains("json ")
            && let Some((_, _, Found::Instances { values_json, .. })) = self.found.last_mut()
        {
            *values_json = true;
        }
    }

    /// Texts, variables, `.`, `base`, `print` and `printf` with `%s`; `{service}` for what a folder is iterated by.
    fn value(&self, expression: &str) -> Option<String> {
        let inner = expression.strip_prefix('(').and_then(|e| e.strip_suffix(')')).unwrap_or(expression).trim();
        if let Some(text) = inner.strip_prefix('"').and_then(|e| e.strip_suffix('"')).filter(|text| !text.contains('"')) {
            return Some(text.to_owned());
        }
        let mut words = inner.split_whitespace();
        match words.next()? {
            "." if inner == "." => Some(self.dot.clone()).filter(|dot| !dot.is_empty()),
            name if name.starts_with('$') && name == inner => self.variables.get(name).cloned(),
            "base" => self.value(words.next()?),
            "printf" => {
                let mut text = words.next()?.trim_matches('"').to_owned();
                for word in words {
                    text = text.replacen("%s", &self.value(word)?, 1);
                }
                (!text.contains('%')).then_some(text)
            }
            "print" => words.map(|word| self.value(word)).collect::<Option<Vec<_>>>().map(|parts| parts.concat()),
            _ => None,
        }
    }

    fn say(&mut self, line: usize, action: &str, found: Found) {
        self.found.push((line, format!("{{{{{action}}}}}"), found));
    }
}

const SERVICE: &str = "{service}";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, expected: &[&str]) {
        let show = |(line, _, found): (usize, String, Found)| match found {
            Found::Instances { keys, service, values_json } => {
                let json = if values_json { " json" } else { "" };
                format!("{line} {keys} {}{json}", service.unwrap_or_else(|| "-".to_owned()))
            }
            Found::Else(why) => format!("{line} {}", why.split_whitespace().take(3).collect::<Vec<_>>().join(" ")),
        };
        assert_eq!(found(template).into_iter().map(show).collect::<Vec<_>>(), expected, "{template}");
    }

    #[test]
    fn iterations_inside_upstreams_are_sources() {
        check(
            "upstream app {\n{{range getvs \"/services/app/*\"}}\n server {{.}};\n{{end}}\n}",
            &["2 /services/app/{instance} app"],
        );
        check("upstream app { {{range gets \"/app/*\"}} server {{.Value}};{{end}} }", &["1 /app/{instance} app"]);
        check(
            "{{range $name := lsdir \"/services\"}}\nupstream {{$name}} {\n{{range getvs (printf \"/services/%s/*\" $name)}}server {{.}};{{end}}\n}{{end}}",
            &["3 /services/{service}/{instance} -"],
        );
        check(
            "{{range lsdir \"/s\"}}{{$s := base .}}upstream {{$s}} { {{range gets (print \"/s/\" $s \"/*\")}}{{$d := json .Value}}server {{$d.host}}:{{$d.port}};{{end}} }{{end}}",
            &["1 /s/{service}/{instance} - json"],
        );
    }

    #[test]
    fn what_else_asks_etcd_is_told() {
        check("server_name {{getv \"/app/domain\"}};", &["1 a setting in"]);
        check("{{range gets \"/a/*\"}}{{end}}", &["1 it stands in"]);
        check("upstream a { {{range gets (foo \"/a\")}}{{end}} }", &["1 which keys these"]);
        check("upstream a { {{range gets \"/a/*/b\"}}{{end}} }", &["1 only keys of"]);
        check("{{ unclosed", &[]);
        check("{{end}}{{end}} } upstream {{.}}", &[]);
    }
}
