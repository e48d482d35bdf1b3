//! What a server said, fit to print.

use tinsmith_wire::ErrorBody;

/// Most of a server's words that an error repeats, in characters.
const MAX_WORDS: usize = 400;
/// Most of a body that is searched for words, in bytes.
const MAX_BODY: usize = 1 << 16;

/// The `detail` of a JSON body, the text of a web page, or else the body itself: cut short, on one
/// line. It may repeat secrets: [`Auth::redact`](super::auth::Auth::redact) hides them.
pub(crate) fn words(body: &[u8]) -> String {
    let detail =
        tinsmith_wire::json::from_slice::<ErrorBody>(body).ok().and_then(|body| body.message());
    let text = detail.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body[..body.len().min(MAX_BODY)]);
        match text.trim_start().starts_with('<') {
            true => format!("a web page: {}", without_markup(&text)),
            false => text.into_owned(),
        }
    });
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.is_empty() {
        true => "(no message)".to_owned(),
        false => line,
    }
}

/// The first characters of a line.
pub(crate) fn cut(line: String) -> String {
    match line.char_indices().nth(MAX_WORDS) {
        Some((end, _)) => format!("{}..", &line[..end]),
        None => line,
    }
}

/// What a browser would show of HTML. Error pages begin with more markup than an error repeats.
fn without_markup(page: &str) -> String {
    // Of the same length, so that places in one are places in the other.
    let lower = page.to_ascii_lowercase();
    let (mut text, mut at) = (String::new(), 0);
    while let Some(start) = lower[at..].find('<').map(|i| at + i) {
        text += &page[at..start];
        text.push(' ');
        let tag = &lower[start..];
        let end = ["<!--", "<script", "<style"]
            .into_iter()
            .zip(["-->", "</script>", "</style>"])
            .find_map(|(open, close)| tag.starts_with(open).then_some(close))
            .unwrap_or(">");
        at = match tag.find(end) {
            Some(i) => start + i + end.len(),
            None => page.len(),
        };
    }
    text += &page[at..];
    let entities = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ];
    entities.into_iter().fold(text, |text, (entity, sign)| text.replace(entity, sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_page_the_text_is_left() {
        let page = "<!DOCTYPE html><!-- a > b --><HTML><head><title>502 Bad Gateway</title><STYLE>p > a { color: red }\
                    </style><script>if (1 < 2) go();</script></head><body><h1>Bad&nbsp;Gateway</h1><p>x &lt; &amp;lt; y</p>";
        let shown = without_markup(page);
        let words: Vec<&str> = shown.split_whitespace().collect();
        assert_eq!(words, ["502", "Bad", "Gateway", "Bad", "Gateway", "x", "<", "&lt;", "y"]);
        for broken in ["<", "<!-- never closed", "<script>", "é<style>é"] {
            assert_eq!(without_markup(broken).trim(), broken.split('<').next().unwrap());
        }
    }
}
