//! A `tokenizer.json` from the maps of a saved annotator.
//!
//! The maps hold vocabulary, merges and added tokens; the rest is the same for every Qwen2 tokenizer and follows the
//! `tokenizer.json` of Qwen2-VL: NFC, the Qwen2 split pattern, byte-level BPE, no template around a text.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::json;

use super::features::Features;

const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Writes it.
pub(super) fn write(features: &Features, writer: &mut dyn Write) -> io::Result<()> {
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false
    });
    let added = features.added_tokens.iter().map(|(id, content)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": is_special(content),
        })
    });
    let file = File {
        version: "1.0",
        truncation: (),
        padding: (),
        added_tokens: added.collect(),
        normalizer: json!({ "type": "NFC" }),
        pre_tokenizer: json!({
            "type": "Sequence",
            "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": PATTERN }, "behavior": "Isolated", "invert": false },
                byte_level
            ]
        }),
        post_processor: byte_level.clone(),
        decoder: byte_level,
        model: Model {
            r#type: "BPE",
            dropout: (),
            unk_token: (),
            continuing_subword_prefix: "",
            end_of_word_suffix: "",
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: false,
            vocab: Vocabulary(features),
            merges: Merges(features),
        },
    };
    serde_json::to_writer(writer, &file).map_err(io::Error::from)
}

/// All of Qwen2-VL's added tokens are special. The maps do not say it, and later tokenizers of the family have others
/// beside them, as `<tool_call>` and `<|fim_prefix|>`, that are not and stay in a decoded text.
fn is_special(content: &str) -> bool {
    const NOT_SPECIAL: [&str; 6] = [
        "<|fim_prefix|>",
        "<|fim_middle|>",
        "<|fim_suffix|>",
        "<|fim_pad|>",
        "<|repo_name|>",
        "<|file_sep|>",
    ];
    content.starts_with("<|") && content.ends_with("|>") && !NOT_SPECIAL.contains(&content)
}

#[derive(Serialize)]
struct File<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<serde_json::Value>,
    normalizer: serde_json::Value,
    pre_tokenizer: serde_json::Value,
    post_processor: serde_json::Value,
    decoder: serde_json::Value,
    model: Model<'a>,
}

#[derive(Serialize)]
struct Model<'a> {
    r#type: &'static str,
    dropout: (),
    unk_token: (),
    continuing_subword_prefix: &'static str,
    end_of_word_suffix: &'static str,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Vocabulary<'a>,
    merges: Merges<'a>,
}

/// The vocabulary without added tokens, by id.
struct Vocabulary<'a>(&'a Features);

impl Serialize for Vocabulary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (id, token) in self.0.vocabulary.iter().enumerate() {
            // Added tokens have the highest ids: only there is the list looked through.
            let added = id as u64 >= self.0.first_added_id()
                && self.0.added_tokens.iter().any(|(added, _)| *added as usize == id);
            if !token.is_empty() && !added {
                map.serialize_entry(token, &id)?;
            }
        }
        map.end()
    }
}

/// The pairs by rank.
struct Merges<'a>(&'a Features);

impl Serialize for Merges<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.merges.len()))?;
        for pair in &self.0.merges {
            list.serialize_element(pair)?;
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_added_tokens_of_the_family_are_special_as_in_its_files() {
        for special in ["<|endoftext|>", "<|im_start|>", "<|image_pad|>", "<|quad_end|>"] {
            assert!(is_special(special), "{special}");
        }
        for plain in ["<tool_call>", "</tool_call>", "<|fim_pad|>", "<|file_sep|>", "<think>"] {
            assert!(!is_special(plain), "{plain}");
        }
    }
}
