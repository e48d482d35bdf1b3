//! What the contributors' guide shows is in the code.

use std::path::Path;

/// The guide shows the whole change that adds an op. Every line of it is there, in no more than
/// four files.
#[test]
fn the_change_that_adds_an_op_is_as_the_guide_shows_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
    let guide = read("docs/contributing.md");
    let (_, rest) = guide.split_once("```diff\n").expect("a diff");
    let (diff, _) = rest.split_once("```").expect("its end");

    let (mut files, mut source) = (0, String::new());
    for line in diff.lines() {
        if let Some(path) = line.strip_prefix("+++ ") {
            (files, source) = (files + 1, read(path));
        } else {
            let added = line.strip_prefix('+').expect("only additions");
            assert!(source.lines().any(|line| line == added), "not in the source: {added}");
        }
    }
    assert_eq!(files, 4);
}
