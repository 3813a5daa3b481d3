//! Streams never retract, hostile input never panics.

use proptest::prelude::*;
use qwen2vl_tokenizer::{Tokenizer, parse_messages, rope_index};

use crate::TOKENIZER;

/// Ids of single bytes (where broken characters come from), of words, of special tokens, and of nothing.
fn any_id() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..256, 0u32..151_643, 151_643u32..151_665, Just(u32::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn deltas_together_are_the_text(ids in prop::collection::vec(any_id(), 0..40), skip in any::<bool>()) {
        let mut stream = TOKENIZER.stream(skip);
        let mut text: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
        text.extend(stream.finish());
        prop_assert_eq!(text, TOKENIZER.detokenize(&ids, skip));
    }

    #[test]
    fn bytes_of_tokens_together_spell_the_text(ids in prop::collection::vec(any_id(), 0..40)) {
        let bytes: Vec<u8> = ids.iter().filter_map(|&id| TOKENIZER.token_bytes(id)).flatten().collect();
        prop_assert_eq!(String::from_utf8_lossy(&bytes), TOKENIZER.detokenize(&ids, false));
        for id in ids {
            prop_assert_eq!(TOKENIZER.is_special(id), (151_643..151_657).contains(&id), "{}", id);
        }
    }

    #[test]
    fn messages_from_anywhere_never_panic(json in "\\PC{0,60}") {
        let _ = parse_messages(&json);
    }

    #[test]
    fn structured_messages_never_panic(
        key in "(role|content|type|text|image|image_url|video)",
        value in prop_oneof![Just("null"), Just("5"), Just("\"x\""), Just("[]"), Just("{}"), Just("[[1]]"), Just("[{}]")],
    ) {
        let _ = parse_messages(&format!(r#"[{{"role": "user", "content": [{{"{key}": {value}}}], "{key}": {value}}}]"#));
    }

    #[test]
    fn positions_of_any_ids_and_grids_are_an_error_or_as_many_as_the_ids(
        ids in prop::collection::vec(151_650u32..151_658, 0..24),
        images in prop::collection::vec(any::<[u8; 3]>(), 0..3),
        videos in prop::collection::vec(any::<[u8; 3]>(), 0..3),
    ) {
        let small = |grids: Vec<[u8; 3]>| grids.iter().map(|g| g.map(|v| u32::from(v % 6))).collect::<Vec<_>>();
        if let Ok(index) = rope_index(&ids, &small(images), &small(videos)) {
            prop_assert!(index.position_ids.iter().all(|axis| axis.len() == ids.len()));
        }
    }
}

#[test]
fn a_tokenizer_that_is_none_is_an_error() {
    for json in ["", "{}", "[]", "not json"] {
        let error = Tokenizer::from_bytes(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("cannot be used"), "{error}");
    }
    let error = Tokenizer::from_file("no-such-tokenizer.json").unwrap_err().to_string();
    assert!(error.contains("no-such-tokenizer.json"), "{error}");
}
