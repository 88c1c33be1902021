//! The house keeps its floors: a room knows only rooms below it, and each outside crate has one address.
//!
//! Reads every file under `src/` as text. Paths in comments do not count; grouped imports are opened.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the ground up. Rooms of one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["model"],
    &["wire", "fetch", "system", "rate", "routing", "proxy_protocol", "seal", "health", "tls"],
    &["config", "import", "pool", "trust"],
    &["catalog", "telemetry"],
    &["registry", "embedded", "resolver", "prober", "certs"],
    &["proxy", "admin", "registrar", "acme"],
    &["app"],
    &["cli", "fuzzing"],
];

/// Where each outside crate lives, by the start of the path under `src/`.
const ADDRESSES: &[(&str, &[&str])] = &[
    ("pingora_core", &["proxy/pingora/"]),
    ("pingora_error", &["proxy/pingora/"]),
    ("pingora_http", &["proxy/pingora/"]),
    ("pingora_proxy", &["proxy/pingora/"]),
    ("httparse", &["proxy/http1/"]),
    ("memchr", &["proxy/http1/"]),
    ("etcd_client", &["registry/", "embedded/"]),
    (
        "tokio_rustls",
        &[
            "acme/directory.rs",
            "admin/tls.rs",
            "fetch.rs",
            "prober/",
            "proxy/challenge.rs",
            "proxy/downstream/stream.rs",
            "proxy/handshake.rs",
            "proxy/upstream/",
        ],
    ),
    ("rustls_native_certs", &["tls/authorities.rs"]),
    ("instant_acme", &["acme/"]),
    ("rcgen", &["tls/proof.rs", "tls/samples.rs"]),
    ("base64", &["config/acme.rs"]),
    ("x509_parser", &["tls/x509.rs", "tls/proof.rs", "wire/pem.rs"]),
    ("redb", &["embedded/"]),
    ("tonic", &["registry/", "embedded/", "prober/"]),
    ("arc_swap", &["catalog/live.rs", "pool/gate.rs"]),
    ("ring::hmac", &["admin/access.rs"]),
    ("ring::aead", &["seal/"]),
    ("toml", &["config/", "import/confd.rs"]),
    ("clap", &["config/", "cli/", "main.rs"]),
];

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for file in sources() {
        let Some((room, floor)) = room_of(&file.name) else { continue };
        for named in rooms_named(&file.code) {
            match floor_of(&named) {
                Some(below) if below < floor || named == room => {}
                Some(same) if same == floor => wrong.push(format!("{}: {room} knows {named}, of its own floor", file.name)),
                Some(_) => wrong.push(format!("{}: {room} knows {named}, of a floor above", file.name)),
                None => wrong.push(format!("{}: crate::{named} is on no floor; give it one here", file.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_room_says_the_floor_it_is_on() {
    let doors = sources().into_iter().filter(|file| file.name.ends_with("/mod.rs") && file.name.matches('/').count() == 1);
    let told =
        doors.filter_map(|file| Some((file.first_line.strip_prefix("//! FLOOR ")?.split('.').next()?.to_owned(), file.name)));
    let wrong: Vec<String> = told
        .filter(|(said, name)| room_of(name).is_some_and(|(_, floor)| *said != floor.to_string()))
        .map(|(said, name)| format!("{name} says floor {said}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_outside_crate_has_one_address() {
    let mut wrong = Vec::new();
    for file in sources() {
        for (name, homes) in ADDRESSES {
            if names_crate(&file.code, name) && !homes.iter().any(|home| file.name.starts_with(home)) {
                wrong.push(format!("{}: names {name}, which lives in {}", file.name, homes.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_reader_of_this_test_sees_grouped_and_plain_paths() {
    let code = "use crate::{model::{A, B}, pool::Pool, wire};\nfn f() -> crate::catalog::Live {} // crate::cli\nuse crate::{\n    admin::X,\n    self,\n};";
    let expected = ["admin", "catalog", "model", "pool", "wire"].map(str::to_owned);
    assert_eq!(rooms_named(&without_comments(code)), BTreeSet::from(expected));
    assert!(names_crate("fn f(x: toml::Value)", "toml") && !names_crate("my_toml::Value", "toml"));
}

struct Source {
    /// Under `src/`, as in `pool/mod.rs`.
    name: String,
    first_line: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src/ can be listed") {
            let path: PathBuf = entry.expect("its entries can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&root).expect("it lies under src/").to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                let first_line = text.lines().next().unwrap_or_default().to_owned();
                found.push(Source { name, first_line, code: without_comments(&text) });
            }
        }
    }
    found
}

fn without_comments(code: &str) -> String {
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The room a file belongs to and its floor; `lib.rs` and `main.rs` stand before the door.
fn room_of(file: &str) -> Option<(&str, usize)> {
    let room = file.split('/').next()?.trim_end_matches(".rs");
    (!matches!(room, "lib" | "main")).then(|| (room, floor_of(room).unwrap_or_else(|| panic!("{file}: {room} is on no floor"))))
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The first segment of every `crate::…` path, those inside `crate::{…}` too.
fn rooms_named(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (_, rest) in code.match_indices("crate::").map(|(at, path)| (at, &code[at + path.len()..])) {
        match rest.strip_prefix('{') {
            Some(group) => named.extend(heads_of_group(group)),
            None => named.extend(identifier(rest)),
        }
    }
    named.remove("self");
    named
}

fn heads_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut item, mut heads) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => heads.extend(identifier(std::mem::take(&mut item).trim())),
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    heads.extend(identifier(item.trim()));
    heads
}

fn identifier(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    // `crate::run` and `crate::Config` are what lib.rs itself offers, not a room.
    word.starts_with(|c: char| c.is_ascii_lowercase()).then_some(word)
}

fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    })
}
