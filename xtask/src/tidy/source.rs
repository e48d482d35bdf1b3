//! The files of the repository that the checks read.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use syn::punctuated::Punctuated;
use syn::{Attribute, Meta, Token};

/// A Rust file.
pub(super) struct Source {
    /// From the root of the repository, with `/`.
    pub path: String,
    pub text: String,
    pub syntax: syn::File,
}

impl Source {
    pub fn parse(path: &str, text: String) -> Result<Self> {
        let syntax = syn::parse_file(&text).map_err(|error| {
            let line = error.span().start().line;
            anyhow::anyhow!("{path}:{line}: {error}")
        })?;
        Ok(Self { path: path.to_owned(), text, syntax })
    }
}

/// Every Rust file that git has or would add.
pub(super) fn all(repository: &Path) -> Result<Vec<Source>> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git")
        .args(arguments)
        .arg("*.rs")
        .current_dir(repository)
        .output()
        .context("starting git ls-files")?;
    ensure!(listed.status.success(), "git ls-files: {}", listed.status);
    let listed = String::from_utf8(listed.stdout).context("a file's name is not UTF-8")?;
    let paths = listed.split_terminator('\0');
    // A file that was deleted without telling git is listed still.
    let there = paths.filter(|path| repository.join(path).is_file());
    let read = |path: &str| {
        let text = fs::read_to_string(repository.join(path));
        Source::parse(path, text.with_context(|| format!("reading {path}"))?)
    };
    there.map(read).collect()
}

/// Whether these attributes keep an item for tests: `#[cfg(test)]` or `#[cfg(all(test, ..))]`.
pub(super) fn for_tests(attributes: &[Attribute]) -> bool {
    let condition = |attribute: &Attribute| match attribute.path().is_ident("cfg") {
        true => attribute.parse_args::<Meta>().ok(),
        false => None,
    };
    attributes.iter().filter_map(condition).any(|condition| match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => list
            .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            .is_ok_and(|all| all.iter().any(|one| one.path().is_ident("test"))),
        Meta::List(_) | Meta::NameValue(_) => false,
    })
}
