//! The guide holds together: every page is in the summary and tried as a doc test, and every link
//! leads somewhere.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src")
}

/// The pages, relative to the guide's folder, without the summary.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "losses"] {
        for entry in fs::read_dir(docs().join(folder)).unwrap() {
            let page = Path::new(folder).join(entry.unwrap().file_name());
            if page.extension().is_some_and(|extension| extension == "md") {
                pages.push(page);
            }
        }
    }
    pages.retain(|page| page != Path::new("SUMMARY.md"));
    assert!(pages.len() > 10);
    pages
}

fn read(page: &Path) -> String {
    fs::read_to_string(docs().join(page)).unwrap()
}

/// Where the links of a page lead, outside of its code.
fn links(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let rest = prose.split("](").skip(1);
    rest.filter_map(|rest| Some(rest.split_once(')')?.0.replace('\n', ""))).collect()
}

/// The anchors of a page's headings, as mdBook and GitHub make them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.split("```").step_by(2).flat_map(str::lines);
    let headings = headings.filter_map(|line| line.strip_prefix('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_page_is_in_the_summary_and_its_code_is_tried() {
    let (summary, tried) = (read(Path::new("SUMMARY.md")), include_str!("../src/guide.rs"));
    for page in pages() {
        let name = page.to_str().unwrap().replace('\\', "/");
        assert!(summary.contains(&format!("({name})")), "{name} is not in the summary");
        let path = name.trim_end_matches(".md");
        assert!(tried.contains(&format!("= \"{path}\";")), "{name} is no doc test");
    }
}

/// What a module re-exports by `pub use file::{a, b};`, without the structs of options and figures
/// that belong to them.
fn exports(source: &str) -> Vec<String> {
    let statements = source.split("\npub use ").skip(1);
    let names = statements.flat_map(|statement| {
        let list = statement.split(';').next().unwrap_or_default();
        let list = list.split_once("::").unwrap().1.trim_matches(['{', '}', '\n']);
        list.split(',').map(|name| name.trim().to_owned())
    });
    names.filter(|name| name.starts_with(char::is_lowercase)).collect()
}

#[test]
fn every_loss_is_in_the_guide() {
    let all: String = pages().iter().map(|page| read(page)).collect();
    let mut names = exports(include_str!("../../crates/losses/src/lib.rs"));
    names.extend(exports(include_str!("../../crates/losses/src/recipes/mod.rs")));
    names.extend(exports(include_str!("../../crates/losses/src/regularize/mod.rs")));
    assert!(names.len() > 60, "{names:?}");
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let words: HashSet<&str> = all.split(|c| !is_word(c)).collect();
    names.retain(|name| !words.contains(name.as_str()));
    assert_eq!(names, [""; 0], "are not in the guide");
}

#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    for page in pages().into_iter().chain(["SUMMARY.md".into()]) {
        let text = read(&page);
        for link in links(&text).iter().filter(|link| !link.starts_with("http")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = page.parent().unwrap();
            let target = match file {
                "" => page.clone(),
                file => folder.join(file),
            };
            let here = format!("{}: {link}", page.display());
            assert!(docs().join(&target).is_file(), "{here}");
            if !anchor.is_empty() {
                let anchors = anchors(&read(&target));
                assert!(anchors.iter().any(|found| found == anchor), "{here}: {anchors:?}");
            }
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen} links");
}
