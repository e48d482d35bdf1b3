//! Sentences of a real book, split into what is trained on and what is held out.

use std::collections::HashSet;

const BOOK: &str = include_str!("../data/alice.txt");

/// The book's sentences, each once. No held-out sentence is among those to train on.
pub struct Split {
    pub train: Vec<String>,
    pub held_out: Vec<String>,
}

impl Split {
    /// Every sixth distinct sentence, in the book's order, is held out.
    pub fn load() -> Split {
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        let distinct = sentences(BOOK).filter(|sentence| seen.insert(sentence.to_lowercase()));
        for (index, sentence) in distinct.enumerate() {
            if index % 6 == 0 { held_out.push(sentence) } else { train.push(sentence) }
        }
        Split { train, held_out }
    }
}

/// Sentences of 4 to 25 words and 20 to 130 bytes, of nothing but words and punctuation, without
/// quotation marks. A sentence ends where the next word has a capital, so `"Why?" said the Hatter.`
/// is one.
fn sentences(book: &str) -> impl Iterator<Item = String> {
    book.split("\n\n").flat_map(|paragraph| {
        let words: Vec<String> =
            paragraph.split_whitespace().map(unquoted).filter(|word| !word.is_empty()).collect();
        let mut cut = Vec::new();
        let mut start = 0;
        for end in 1..=words.len() {
            let closed = words[end - 1].ends_with(['.', '!', '?']);
            let next_begins =
                words.get(end).is_none_or(|word| word.starts_with(char::is_uppercase));
            if closed && next_begins {
                cut.push(words[start..end].join(" "));
                start = end;
            }
        }
        let plain = |c: char| c.is_ascii_alphabetic() || " ,;:'-.!?".contains(c);
        cut.into_iter().filter(move |sentence| {
            sentence.starts_with(|c: char| c.is_ascii_uppercase())
                && sentence.chars().all(plain)
                && (20..=130).contains(&sentence.len())
                && (4..=25).contains(&sentence.split(' ').count())
        })
    })
}

/// A word without quotation marks and brackets; an apostrophe between letters stays.
fn unquoted(word: &str) -> String {
    let letter = |at: Option<usize>| {
        at.and_then(|at| word.as_bytes().get(at)).is_some_and(u8::is_ascii_alphabetic)
    };
    let apostrophe = |at: usize| letter(at.checked_sub(1)) && letter(Some(at + 1));
    let keep = |&(at, c): &(usize, char)| {
        if c == '\'' { apostrophe(at) } else { !"`\"()".contains(c) }
    };
    word.char_indices().filter(keep).map(|(_, c)| c).collect()
}

/// The same words in another order. Words keep their case and their commas; the first is
/// capitalized, and the stop stays at the end. So what tells the two sentences apart is within
/// them.
pub fn shuffle_words(sentence: &str, rng: &mut Rng) -> String {
    let (words, stop) = sentence.split_at(sentence.len() - 1);
    let original: Vec<&str> = words.split(' ').collect();
    let mut words = original.clone();
    while words == original && original.iter().any(|word| *word != original[0]) {
        rng.shuffle(&mut words);
    }
    let first = with_first(words[0], char::to_ascii_uppercase);
    words[0] = &first;
    words.join(" ") + stop
}

fn with_first(word: &str, change: fn(&char) -> char) -> String {
    let mut characters = word.chars();
    characters.next().iter().map(change).chain(characters).collect()
}

/// SplitMix64: a few lines, and the same numbers on every machine.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Fisher and Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
