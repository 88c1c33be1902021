//! The laws hold for every kept seed, and for what is made of the seeds here; the fuzzer goes on from the same seeds.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::LAWS;

#[test]
fn every_kept_seed_keeps_its_law() {
    for (name, law) in LAWS {
        for seed in seeds(name) {
            law(&seed);
        }
    }
}

#[test]
fn every_law_has_a_fuzz_target_and_every_target_a_law() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for (name, _) in LAWS {
        let target = fs::read_to_string(folder.join("fuzz_targets").join(format!("{name}.rs"))).unwrap_or_default();
        assert!(target.contains(&format!("pointsman::fuzzing::{name}(")), "fuzz_targets/{name}.rs does not ask {name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml has no [[bin]] {name}");
    }
    assert_eq!(fs::read_dir(folder.join("fuzz_targets")).unwrap().count(), LAWS.len());
    assert_eq!(fs::read_dir(folder.join("seeds")).unwrap().count(), LAWS.len());
}

/// One change of a seed, at a place between 0 and 1.
#[derive(Debug, Clone)]
enum Edit {
    Put(f64, Vec<u8>),
    Cut(f64, usize),
    /// A piece of it once more.
    Again(f64, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let odd = prop::sample::select(vec![
        "\r\n",
        "\r",
        "\n",
        "\0",
        " ",
        "\t",
        ":",
        ";",
        "/",
        "..",
        "%2e",
        "{",
        "}",
        "\"",
        "[",
        "0",
        "-1",
        "99999999999999999999",
        "null",
        "\u{e9}",
        "chunked",
        "content-length: 1\r\n",
        "transfer-encoding: chunked\r\n",
        "host: b\r\n",
    ]);
    let bytes = prop_oneof![odd.prop_map(|text| text.as_bytes().to_vec()), prop::collection::vec(any::<u8>(), 1..4)];
    prop_oneof![
        (0.0..=1.0, bytes).prop_map(|(at, bytes)| Edit::Put(at, bytes)),
        (0.0..=1.0, 1..9usize).prop_map(|(at, n)| Edit::Cut(at, n)),
        (0.0..=1.0, 1..40usize).prop_map(|(at, n)| Edit::Again(at, n)),
    ]
}

impl Edit {
    fn apply(&self, seed: &mut Vec<u8>) {
        let length = seed.len();
        let place = |at: &f64| (length as f64 * at) as usize;
        match self {
            Self::Put(at, bytes) => drop(seed.splice(place(at)..place(at), bytes.iter().copied())),
            Self::Cut(at, n) => drop(seed.drain(place(at)..(place(at) + n).min(length))),
            Self::Again(at, n) => {
                let piece = seed[place(at)..(place(at) + n).min(length)].to_vec();
                seed.splice(place(at)..place(at), piece);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_law_holds_for_what_is_made_of_its_seeds(
        which in any::<prop::sample::Index>(),
        seed in any::<prop::sample::Index>(),
        edits in prop::collection::vec(edit(), 1..5),
    ) {
        let (name, law) = LAWS[which.index(LAWS.len())];
        let seeds = seeds(name);
        let mut bytes = seeds[seed.index(seeds.len())].clone();
        edits.iter().for_each(|edit| edit.apply(&mut bytes));
        law(&bytes);
    }
}

/// The files of `fuzz/seeds/NAME`, in the order of their names.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{name} has no seeds");
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}
