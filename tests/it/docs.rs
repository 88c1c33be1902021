//! What the documents show is true: links lead somewhere, and every configuration in them is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).expect("documents are UTF-8");
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = document.parent().expect("a document lies in a folder");
            let goal = if file.is_empty() { document.clone() } else { folder.join(file) };
            if !goal.exists() {
                broken.push(format!("{}: {link} leads nowhere", document.display()));
            } else if !anchor.is_empty() && !anchors(&goal).contains(&anchor.to_owned()) {
                broken.push(format!("{}: {link}: no heading of that name", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_configuration_shown_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    for document in documents() {
        let text = fs::read_to_string(&document).expect("documents are UTF-8");
        for (n, block) in blocks(&text, "toml").enumerate() {
            let file = folder.path().join(format!("{n}.toml"));
            fs::write(&file, block).expect("a configuration file");
            let out = Command::new(env!("CARGO_BIN_EXE_pointsman")).arg("check").arg("--config").arg(&file).output();
            let out = out.expect("the built binary can be run");
            let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            assert!(out.status.success(), "{}:\n{block}\n{said}", document.display());
        }
    }
}

#[test]
fn the_reader_of_this_test_sees_links_and_blocks() {
    let text = "# A `b` c!\nsee [x](y.md#a-b-c) and [z](#w)\n```toml\na = 1\n```\n";
    assert_eq!(links(text).collect::<Vec<_>>(), ["y.md#a-b-c", "#w"]);
    assert_eq!(blocks(text, "toml").collect::<Vec<_>>(), ["a = 1\n"]);
    assert_eq!(anchor_of("A `b` c!"), "a-b-c");
}

/// Those at the top, in `docs/`, and beside examples and benchmarks.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["", "docs", "examples", "bench"].map(|folder| root.join(folder));
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|p| p.extension().is_some_and(|e| e == "md")).collect();
    assert!(found.len() > 3, "only {found:?}");
    found
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](").filter_map(|(at, open)| text[at + open.len()..].split_once(')').map(|(link, _)| link))
}

fn blocks<'a>(text: &'a str, language: &'a str) -> impl Iterator<Item = &'a str> {
    let fence = format!("```{language}\n");
    let starts: Vec<usize> = text.match_indices(&fence).map(|(at, _)| at + fence.len()).collect();
    starts.into_iter().filter_map(|start| text[start..].split_once("```").map(|(block, _)| block))
}

fn anchors(document: &Path) -> Vec<String> {
    let text = fs::read_to_string(document).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor_of(line.trim_start_matches('#').trim())).collect()
}

/// As the hosts of repositories make it from a heading.
fn anchor_of(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}
