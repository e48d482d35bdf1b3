//! The byte tokenizer of the built-in models: a token is a byte, and three ids above stand for the
//! special tokens.

/// End of text, also used for padding and as the first token of a document.
pub const END_OF_TEXT: u32 = 256;
/// Start of a chat message.
pub const IM_START: u32 = 257;
/// End of a chat message; the built-in models' end-of-sequence token.
pub const IM_END: u32 = 258;

/// The bytes of `text`, one token each.
///
/// ```
/// use tinsmith_trainer::tokenizer;
///
/// assert_eq!(tokenizer::encode("né"), [110, 195, 169]);
/// assert_eq!(tokenizer::decode(&[110, 195, 169, tokenizer::IM_END]), "né");
/// ```
pub fn encode(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// The text of `tokens`; ids above 255 are left out and broken UTF-8 becomes U+FFFD.
pub fn decode(tokens: &[u32]) -> String {
    String::from_utf8_lossy(&bytes(tokens)).into_owned()
}

/// The bytes of `tokens`; ids above 255 are left out.
pub(crate) fn bytes(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().filter_map(|&id| u8::try_from(id).ok()).collect()
}
