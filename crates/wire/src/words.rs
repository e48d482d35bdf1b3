//! The words `NaN`, `Infinity` and `-Infinity`, which Python writes for numbers and which are not
//! JSON. A body that has them is read a second time, with the words in quotes.

use std::ops::Range;

/// The body with each word in quotes; `None` if there is none.
pub(crate) fn quoted(body: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut copied = 0;
    for word in words(body) {
        if text.is_empty() {
            text.reserve(body.len() + body.len() / 8);
        }
        text.extend_from_slice(&body[copied..word.start]);
        text.push(b'"');
        text.extend_from_slice(&body[word.clone()]);
        text.push(b'"');
        copied = word.end;
    }
    (copied > 0).then(|| {
        text.extend_from_slice(&body[copied..]);
        text
    })
}

/// The column in `body` of a place in what [`quoted`] made of it. Lines and columns count from 1,
/// and quotes do not change the lines.
pub(crate) fn column(body: &[u8], line: usize, column: usize) -> usize {
    let ends = memchr::memchr_iter(b'\n', body).map(|end| end + 1);
    let start = [0].into_iter().chain(ends).nth(line.saturating_sub(1)).unwrap_or(0);
    let quoted = words(body).skip_while(|word| word.start < start);
    // The closing quote of a word that the column is past, or at the end of, adds the second.
    let before = quoted.enumerate().take_while(|(i, word)| word.start - start + 2 * i < column);
    column.saturating_sub(2 * before.count())
}

/// Where the words are, outside of strings.
fn words(body: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at += memchr::memchr3(b'"', b'N', b'I', body.get(at..)?)?;
            let rest = &body[at..];
            if rest[0] == b'"' {
                at += 1 + length_of_string(&rest[1..])?;
            } else if rest.starts_with(b"NaN") {
                at += 3;
                return Some(at - 3..at);
            } else if rest.starts_with(b"Infinity") {
                let start = if body[..at].ends_with(b"-") { at - 1 } else { at };
                at += 8;
                return Some(start..at);
            } else {
                at += 1;
            }
        }
    })
}

/// Length of a string with its closing quote, given what follows the opening one.
fn length_of_string(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}
