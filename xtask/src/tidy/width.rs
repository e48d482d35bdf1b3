//! Comments are no wider than code. Code in them, tables and addresses may be.

use std::collections::{BTreeSet, HashSet};

use proc_macro2::{TokenStream, TokenTree};

use super::Complaint;
use super::source::Source;
use super::wrap::wrap;

const MOST: usize = 100;

/// `known` are beginnings of the paths of files that may be as they are.
pub(super) fn check(sources: &[Source], known: &[&'static str]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut unused: BTreeSet<&str> = known.iter().copied().collect();
    for source in sources {
        let known = known.iter().find(|known| source.path.starts_with(*known));
        for block in blocks(source) {
            let wrapped = block.wrapped();
            let most = MOST - block.mark.chars().count();
            let broken = |line: &str| {
                line.chars().count() > most && wrapped.iter().all(|other| other != line)
            };
            let Some(first) = block.lines.iter().position(|line| broken(line)) else {
                continue;
            };
            match known {
                Some(known) => drop(unused.remove(known)),
                None => {
                    let text = format!(
                        "a comment is wider than {MOST} columns: break the line, or run `cargo xtask tidy --fix`"
                    );
                    complaints.push(Complaint::new(&source.path, block.start + first + 1, text));
                }
            }
        }
    }
    for known in unused {
        let text = format!("no comment in {known} is too wide any more: strike it out");
        complaints.push(Complaint::stale(known, &text));
    }
    complaints
}

/// The file with its comments wrapped, unless nothing is to do or it is known to be wide.
pub(super) fn fixed(source: &Source, known: &[&'static str]) -> Option<String> {
    if known.iter().any(|known| source.path.starts_with(known)) {
        return None;
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let mut text = String::new();
    let mut done = 0;
    let mut push = |line: &str| {
        text += line;
        text += "\n";
    };
    for block in blocks(source) {
        lines[done..block.start].iter().for_each(|line| push(line));
        for line in block.wrapped() {
            match line.is_empty() {
                true => push(block.mark.trim_end()),
                false => push(&format!("{}{line}", block.mark)),
            }
        }
        done = block.start + block.lines.len();
    }
    lines[done..].iter().for_each(|line| push(line));
    (text != source.text).then_some(text)
}

/// Lines of comment below each other, of one kind and at one depth.
struct Block<'a> {
    /// The index of its first line.
    start: usize,
    /// What each line begins with: the indentation, and the marks of a comment.
    mark: &'a str,
    /// What comes after.
    lines: Vec<&'a str>,
}

impl Block<'_> {
    fn wrapped(&self) -> Vec<String> {
        wrap(&self.lines, MOST - self.mark.chars().count())
    }
}

fn blocks(source: &Source) -> Vec<Block<'_>> {
    let literals = lines_of_literals(&source.text);
    let mut blocks: Vec<Block> = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        if literals.contains(&(index + 1)) {
            continue;
        }
        let Some((mark, text)) = comment(line) else {
            continue;
        };
        match blocks.last_mut() {
            Some(block)
                if block.start + block.lines.len() == index
                    && block.mark.trim_end() == mark.trim_end() =>
            {
                block.lines.push(text);
                // An empty line has no space after its mark.
                if block.mark.len() < mark.len() {
                    block.mark = mark;
                }
            }
            _ => blocks.push(Block { start: index, mark, lines: vec![text] }),
        }
    }
    blocks
}

/// The mark of a line that is all comment, with the space after it, and its text.
fn comment(line: &str) -> Option<(&str, &str)> {
    let depth = line.len() - line.trim_start().len();
    let marks = ["/// ", "//! ", "// ", "///", "//!", "//"];
    let mark = marks.into_iter().find(|mark| line[depth..].starts_with(mark))?;
    Some(line.split_at(depth + mark.len()))
}

/// The lines, from 1, that begin within a literal: a comment they are not.
fn lines_of_literals(text: &str) -> HashSet<usize> {
    fn walk(tokens: TokenStream, lines: &mut HashSet<usize>) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => walk(group.stream(), lines),
                TokenTree::Literal(literal) => {
                    let span = literal.span();
                    lines.extend(span.start().line + 1..=span.end().line);
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
    let mut lines = HashSet::new();
    // It was parsed before.
    walk(text.parse().unwrap_or_default(), &mut lines);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::parse("a/b.rs", text.to_owned()).unwrap()
    }

    fn complaints(text: &str, known: &[&'static str]) -> Vec<String> {
        let complaints = check(&[source(text)], known);
        complaints.iter().map(Complaint::to_string).collect()
    }

    /// Of `columns` columns, with one space in the middle.
    fn line(mark: &str, columns: usize) -> String {
        let mut line = format!("{mark} {} ", "a".repeat(50));
        line += &"b".repeat(columns - line.len());
        line
    }

    #[test]
    fn a_wide_comment_is_found_and_wrapped() {
        for (before, mark, after) in [
            ("", "//", "fn f() {}\n"),
            ("", "///", "fn f() {}\n"),
            ("", "//!", ""),
            ("fn f() {\n    let a = 1;\n", "    //", "}\n"),
        ] {
            let text = |columns| format!("{before}{}\n{after}", line(mark, columns));
            assert_eq!(complaints(&text(100), &[]), [""; 0]);
            assert_eq!(fixed(&source(&text(100)), &[]), None);
            let at = before.lines().count() + 1;
            let found = complaints(&text(101), &[]);
            assert!(found[0].starts_with(&format!("a/b.rs:{at}: a comment is wider")), "{found:?}");
            let wrapped = text(101).replace(" b", &format!("\n{mark} b"));
            assert_eq!(fixed(&source(&text(101)), &[]), Some(wrapped));
        }
    }

    #[test]
    fn what_is_no_comment_or_cannot_be_broken_is_let_be() {
        let wide = line("//", 120);
        for text in [
            format!("const A: &str = \"\n{wide}\n\";\n"),
            format!("const A: &str = r#\"\n{wide}\n\"#;\n"),
            format!("// {}\n", "a".repeat(120)),
            format!("/// ```\n/{wide}\n/// ```\nfn f() {{}}\n"),
        ] {
            assert_eq!(complaints(&text, &[]), [""; 0], "{text}");
            assert_eq!(fixed(&source(&text), &[]), None, "{text}");
        }
    }

    #[test]
    fn comments_of_another_kind_or_depth_are_not_joined() {
        let wide = line("//", 101);
        let text = format!("{wide}\n/// short\nfn f() {{\n    // deep\n}}\n");
        let wrapped = text.replacen(" b", "\n// b", 1);
        assert_eq!(fixed(&source(&text), &[]), Some(wrapped));
    }

    #[test]
    fn known_files_may_be_wide_and_are_struck_out_when_they_are_not() {
        let wide = line("//", 101);
        assert_eq!(complaints(&wide, &["a/"]), [""; 0]);
        assert_eq!(fixed(&source(&wide), &["a/"]), None);
        assert!(complaints("// short\n", &["a/"])[0].contains("strike it out"));
    }
}
