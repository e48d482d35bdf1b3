//! A file is one idea, and one idea is not longer than this.

use std::collections::{BTreeMap, BTreeSet};

use syn::Item;

use super::Complaint;
use super::scope::Workspace;
use super::source::{Source, for_tests};

const MOST: usize = 500;

/// `known` are files that are longer, with the lines that they may have.
pub(super) fn check(workspace: &Workspace, known: &[(&'static str, usize)]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut known: BTreeMap<&str, usize> = known.iter().copied().collect();
    // What is not a module is for tests.
    let files: BTreeSet<usize> = workspace.modules.iter().map(|module| module.file).collect();
    for file in files {
        let source = &workspace.sources[file];
        let (lines, path) = (lines(source), source.path.as_str());
        match known.remove(path) {
            Some(_) if lines <= MOST => {
                let text = format!("{path} has {lines} lines now, which any may: strike it out");
                complaints.push(Complaint::stale(path, &text));
            }
            most => {
                let most = most.unwrap_or(MOST);
                if lines > most {
                    let text = format!(
                        "{lines} lines without tests, {most} may be: divide it by its ideas"
                    );
                    complaints.push(Complaint::new(path, 1, text));
                }
            }
        }
    }
    for path in known.into_keys() {
        let text = format!("{path} is no module any more: strike it out");
        complaints.push(Complaint::stale(path, &text));
    }
    complaints
}

/// The lines of a file that are not those of its module of tests.
fn lines(source: &Source) -> usize {
    let of_tests = |item: &Item| match item {
        Item::Mod(item) if for_tests(&item.attrs) => {
            let (braces, _) = item.content.as_ref()?;
            let start = item.attrs[0].pound_token.span.start().line;
            Some(braces.span.close().end().line + 1 - start)
        }
        _ => None,
    };
    let of_tests: usize = source.syntax.items.iter().filter_map(of_tests).sum();
    source.text.lines().count() - of_tests
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str, known: &[(&'static str, usize)]) -> Vec<String> {
        let sources = [Source::parse("crates/a/src/lib.rs", text.to_owned()).unwrap()];
        let complaints = check(&Workspace::new(&sources), known);
        complaints.iter().map(Complaint::to_string).collect()
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "const A: u8 = 1;\n".repeat(900));
        let lines = |n: usize| "const A: u8 = 1;\n".repeat(n) + &tests;
        assert_eq!(complaints(&lines(500), &[]), [""; 0]);
        assert_eq!(
            complaints(&lines(501), &[]),
            ["crates/a/src/lib.rs:1: 501 lines without tests, 500 may be: divide it by its ideas"]
        );
    }

    #[test]
    fn a_known_file_may_not_grow_and_is_struck_out_when_it_is_short() {
        let lines = |n: usize| "const A: u8 = 1;\n".repeat(n);
        let known = [("crates/a/src/lib.rs", 600)];
        assert_eq!(complaints(&lines(600), &known), [""; 0]);
        assert!(complaints(&lines(601), &known)[0].contains("601 lines"));
        assert!(complaints(&lines(500), &known)[0].contains("strike it out"));
        let gone = [("crates/b/src/lib.rs", 600)];
        assert!(complaints(&lines(1), &gone)[0].contains("no module any more"));
    }
}
