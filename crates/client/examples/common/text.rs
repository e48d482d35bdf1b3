//! Sentences of a real book, split into what is trained on and what is held out.

use std::collections::HashSet;

const BOOK: &str = include_str!("../data/alice.txt");

/// The book's sentences, each once. No held-out sentence is among those to train on.
pub struct Split {
    pub train: Vec<String>,
    pub held_out: Vec<String>,
    proper: HashSet<String>,
}

impl Split {
    /// Every fourth distinct sentence, in the book's order, is held out.
    pub fn load() -> Split {
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        let distinct = sentences(BOOK).filter(|sentence| seen.insert(sentence.to_lowercase()));
        for (index, sentence) in distinct.enumerate() {
            if index % 4 == 0 {
                held_out.push(sentence)
            } else {
                train.push(sentence)
            }
        }
        let mut split = Split {
            train,
            held_out,
            proper: HashSet::new(),
        };
        split.proper = proper(split.train.iter().chain(&split.held_out));
        split
    }

    /// `sentence` with its words in another order, and in no other way changed.
    pub fn shuffled(&self, sentence: &str, rng: &mut Rng) -> String {
        shuffle_words(sentence, |word| self.proper.contains(word), rng)
    }
}

/// The words that are capitalised wherever they stand: those that have a capital after the first place, and never lack it.
fn proper<'a>(sentences: impl Iterator<Item = &'a String>) -> HashSet<String> {
    let inner = sentences
        .flat_map(|sentence| sentence.split(' ').skip(1))
        .map(bare)
        .map(str::to_owned);
    let (capital, small): (HashSet<_>, HashSet<_>) =
        inner.partition(|word| word.starts_with(char::is_uppercase));
    capital
        .into_iter()
        .filter(|word| !small.contains(&word.to_lowercase()))
        .collect()
}

/// Sentences of 5 to 22 words and 25 to 110 bytes, without quotation marks or anything else but words and punctuation.
fn sentences(book: &str) -> impl Iterator<Item = String> {
    let paragraphs = book
        .split("\n\n")
        .map(|lines| lines.split_whitespace().collect::<Vec<_>>());
    paragraphs.flat_map(|words| {
        let closes = |word: &&str| {
            word.trim_end_matches(['\'', ')', '"'])
                .ends_with(['.', '!', '?'])
        };
        let cut: Vec<String> = words
            .split_inclusive(|word| closes(&word))
            .map(|sentence| sentence.join(" "))
            .collect();
        cut.into_iter().filter_map(|sentence| {
            let sentence = sentence.trim_matches(['`', '\'', '(', ')', '"']);
            let plain = |c: char| c.is_ascii_alphabetic() || " ,;:'-.!?".contains(c);
            let inside = sentence.get(..sentence.len().saturating_sub(1))?;
            let wanted = sentence.starts_with(|c: char| c.is_ascii_uppercase())
                && sentence.ends_with(['.', '!', '?'])
                && !inside.contains(['.', '!', '?'])
                && sentence.chars().all(plain)
                && (25..=110).contains(&sentence.len())
                && (5..=22).contains(&sentence.split(' ').count());
            wanted.then(|| sentence.to_owned())
        })
    })
}

/// The same words in another order. Capitals and punctuation stay where they are, so that only the order of the words
/// tells the two sentences apart: the first word is capitalised, and the one that was first no longer, if it is not
/// `proper` (a name, or "I").
fn shuffle_words(sentence: &str, proper: impl Fn(&str) -> bool, rng: &mut Rng) -> String {
    let tokens: Vec<&str> = sentence.split(' ').collect();
    let mut words: Vec<String> = tokens.iter().map(|token| bare(token).to_owned()).collect();
    if !proper(&words[0]) {
        words[0] = with_first(&words[0], char::to_ascii_lowercase);
    }
    let original = words.clone();
    while words == original && original.iter().any(|word| *word != original[0]) {
        rng.shuffle(&mut words);
    }
    words[0] = with_first(&words[0], char::to_ascii_uppercase);
    let rebuilt = tokens
        .iter()
        .zip(&words)
        .map(|(token, word)| token.replacen(bare(token), word, 1));
    rebuilt.collect::<Vec<_>>().join(" ")
}

/// A word without the punctuation around it.
fn bare(token: &str) -> &str {
    token.trim_matches(|c: char| !c.is_ascii_alphabetic())
}

fn with_first(word: &str, change: fn(&char) -> char) -> String {
    let mut characters = word.chars();
    characters
        .next()
        .iter()
        .map(change)
        .chain(characters)
        .collect()
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
