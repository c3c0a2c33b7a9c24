//! Runs each fuzz target (`tests/fuzz`) with its corpus, so that everything found by fuzzing is tested in
//! every run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "fuzz/targets.rs"]
mod targets;

fn entries(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.map(|entry| entry.expect("the directory can be read").path()).collect()
}

fn names(paths: &[PathBuf]) -> BTreeSet<String> {
    let stem = |path: &PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    paths.iter().filter_map(stem).collect()
}

#[test]
fn every_fuzz_target_holds_over_its_corpus() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let corpora = entries(&fuzz.join("corpus"));
    let with_targets = names(&entries(&fuzz.join("fuzz_targets")));
    assert_eq!(names(&corpora), with_targets, "corpora left, fuzz targets right");
    assert_eq!(corpora.len(), 7);
    for corpus in corpora {
        let name = corpus.file_name().expect("a directory has a name").to_string_lossy().into_owned();
        let inputs = entries(&corpus);
        assert!(inputs.len() >= 10, "{name}: a corpus of {}", inputs.len());
        for input in inputs {
            let data = fs::read(&input).expect("the corpus can be read");
            let held = std::panic::catch_unwind(|| targets::target(&name)(&data));
            assert!(held.is_ok(), "{name}: {}", input.display());
        }
    }
}
