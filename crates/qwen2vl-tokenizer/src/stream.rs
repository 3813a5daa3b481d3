//! Detokenizing token by token: deltas are whole characters and never taken back.
//!
//! Works on bytes. A byte-level token is a run of bytes that may end inside a character; those bytes wait for the next
//! token. Bytes that can never become a character turn into U+FFFD exactly as `String::from_utf8_lossy` does it, which
//! is what `tokenizers` applies to the whole text, so the deltas together equal the text of all ids.

use std::sync::LazyLock;

use qwen2vl_types::TokenId;

use crate::Tokenizer;

/// From ids to text, delta by delta.
#[derive(Debug)]
pub struct DetokenizeStream<'t> {
    tokenizer: &'t Tokenizer,
    skip_special_tokens: bool,
    /// At most three bytes that may become a character.
    pending: Vec<u8>,
}

impl<'t> DetokenizeStream<'t> {
    pub(crate) fn new(tokenizer: &'t Tokenizer, skip_special_tokens: bool) -> Self {
        Self { tokenizer, skip_special_tokens, pending: Vec::new() }
    }

    /// Takes the next id; the text that is certain now, if any.
    pub fn push(&mut self, id: TokenId) -> Option<String> {
        if self.skip_special_tokens && self.tokenizer.special.contains(&id) {
            return None;
        }
        let token = self.tokenizer.id_to_token(id)?;
        append_bytes(&token, &mut self.pending);
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).expect("valid up to here, from_utf8 says"));
                    rest = after;
                    let Some(invalid) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[invalid..];
                }
            }
        }
        self.pending = rest.to_vec();
        (!text.is_empty()).then_some(text)
    }

    /// Ends the text; what the waiting bytes become, if any wait.
    pub fn finish(self) -> Option<String> {
        (!self.pending.is_empty()).then(|| String::from_utf8_lossy(&self.pending).into_owned())
    }
}

/// The bytes of a token: through the byte-level alphabet if all its characters are in it, else as they are.
pub(crate) fn append_bytes(token: &str, bytes: &mut Vec<u8>) {
    let before = bytes.len();
    for character in token.chars() {
        match BYTE_OF.get(character as usize).copied().flatten() {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(before);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// GPT-2's byte-level alphabet, backwards: printable Latin-1 stands for itself, the other bytes for U+0100 on.
static BYTE_OF: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut table = [None; 0x144];
    let mut shifted = 0x100;
    for byte in 0..=u8::MAX {
        if matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) {
            table[usize::from(byte)] = Some(byte);
        } else {
            table[shifted] = Some(byte);
            shifted += 1;
        }
    }
    table
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_has_every_byte_once() {
        let mut bytes: Vec<u8> = BYTE_OF.iter().copied().flatten().collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(BYTE_OF['Ġ' as usize], Some(b' '));
        assert_eq!(BYTE_OF['Ċ' as usize], Some(b'\n'));
    }
}
