//! Comments filled to a width. Their text is Markdown: what has a form of its own (code, tables,
//! headings) is left alone.

use std::mem;

/// Lines of one paragraph, or one line that has a form of its own.
#[derive(Debug, Default)]
struct Paragraph {
    /// What stands before its first line, and before the others: spaces, the mark of a list.
    first: String,
    others: String,
    words: Vec<String>,
    /// As it was written.
    lines: Vec<String>,
}

/// These lines of a comment, without the marks of the comment. A paragraph with a line that is
/// wider than `most` and can be broken is filled anew; the others stay as they are.
pub(super) fn wrap(lines: &[&str], most: usize) -> Vec<String> {
    let filled = |paragraph: Paragraph| match paragraph.is_wider(most) {
        true => paragraph.fill(most),
        false => paragraph.lines,
    };
    paragraphs(lines).into_iter().flat_map(filled).collect()
}

fn paragraphs(lines: &[&str]) -> Vec<Paragraph> {
    let mut found = Vec::new();
    let mut open = Paragraph::default();
    let mut in_code = false;
    for line in lines {
        let text = line.trim_start();
        let indent = &line[..line.len() - text.len()];
        let fence = text.starts_with("```") || text.starts_with("~~~");
        let of_its_own = in_code
            || fence
            || text.is_empty()
            || text.starts_with(['|', '#', '<', '>'])
            || text.starts_with('[') && text.contains("]: ")
            || indent.len() >= 4 && open.lines.is_empty();
        in_code ^= fence;
        if of_its_own {
            found.push(mem::take(&mut open));
            found.push(Paragraph { lines: vec![(*line).to_owned()], ..Paragraph::default() });
            continue;
        }
        let mark = mark(text);
        if mark > 0 || open.lines.is_empty() {
            found.push(mem::take(&mut open));
            open.first = format!("{indent}{}", &text[..mark]);
            open.others = " ".repeat(indent.len() + mark);
        } else if open.lines.len() == 1 {
            open.others = indent.to_owned();
        }
        open.words.extend(words(&text[mark..]));
        open.lines.push((*line).to_owned());
        // A line break that is meant.
        if line.ends_with("  ") || line.ends_with('\\') {
            found.push(mem::take(&mut open));
        }
    }
    found.push(open);
    found
}

/// The length of the mark of a list with what follows it, `* ` or `12. `; 0 where there is none.
fn mark(text: &str) -> usize {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mark = match text[digits..].chars().next() {
        Some('-' | '*' | '+') if digits == 0 => 1,
        Some('.' | ')') if digits > 0 => digits + 1,
        _ => return 0,
    };
    let after = &text[mark..];
    match after.len() - after.trim_start_matches(' ').len() {
        0 => 0,
        spaces => mark + spaces,
    }
}

/// What no line break may come into: code, and what would mean something else at the beginning of a
/// line.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut in_code = false;
    for word in text.split_whitespace() {
        let special =
            mark(&format!("{word} ")) > 0 || word.starts_with(['#', '>', '|', '=', '+', '-']);
        match words.last_mut() {
            Some(last) if in_code || special => *last = format!("{last} {word}"),
            _ => words.push(word.to_owned()),
        }
        in_code ^= word.matches('`').count() % 2 == 1;
    }
    words
}

impl Paragraph {
    fn is_wider(&self, most: usize) -> bool {
        let wide = |line: &String| line.chars().count() > most && words(line).len() > 1;
        !self.words.is_empty() && self.lines.iter().any(wide)
    }

    fn fill(self, most: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = self.first;
        let mut empty = true;
        for word in self.words {
            if !empty && line.chars().count() + 1 + word.chars().count() > most {
                lines.push(mem::replace(&mut line, self.others.clone()));
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line += &word;
            empty = false;
        }
        lines.push(line);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, after: &str) {
        let before: Vec<&str> = before.lines().collect();
        let after: Vec<&str> = after.lines().collect();
        assert_eq!(wrap(&before, 20), after);
    }

    #[test]
    fn a_paragraph_with_a_wide_line_is_filled_and_others_are_kept() {
        check(
            "One two three four five six\nseven eight.\n\nA paragraph of\nshort\nlines.",
            "One two three four\nfive six seven\neight.\n\nA paragraph of\nshort\nlines.",
        );
    }

    #[test]
    fn items_of_a_list_hang() {
        check(
            "Two:\n* one two three four five\n  six\n12. one two three four",
            "Two:\n* one two three four\n  five six\n12. one two three\n    four",
        );
    }

    #[test]
    fn what_has_a_form_of_its_own_is_kept() {
        let kept = "\
# A heading that is rather wide

```
let code = \"that is rather wide\";

let more = \"that is rather wide\";
```
| a table | that is wide |
| --- | --- |

    indented code that is wide
[link]: https://example.com/of-some-length
https://example.com/of-some-length";
        check(kept, kept);
    }

    #[test]
    fn code_is_not_broken_and_no_line_begins_with_a_mark() {
        check("one two three `four five six` seven", "one two three\n`four five six`\nseven");
        check("what two and two is - 4", "what two and two\nis - 4");
        check("there were in all just 12. But", "there were in all\njust 12. But");
    }

    #[test]
    fn a_line_break_that_is_meant_is_kept() {
        check("one two  \nthree four five six seven", "one two  \nthree four five six\nseven");
    }
}
