//! Boxes in answers: however the text is cut they are the same, within the image, and not too many.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qwen2vl_pipeline::{BoxEvent, BoxForms, BoxParser, ImageSize};

/// 4,096, and the one that says that there are more.
const MAX_EVENTS: usize = 4097;

// The first byte says how the rest is cut.
fuzz_target!(|input: &[u8]| {
    let Some((piece, text)) = input.split_first() else { return };
    let (piece, text) = (usize::from(*piece) + 1, &*String::from_utf8_lossy(text));
    for forms in [BoxForms::Off, BoxForms::Marked, BoxForms::Any] {
        let whole = BoxParser::parse(text, forms);
        let characters: Vec<char> = text.chars().collect();
        let mut parser = BoxParser::new(forms);
        let mut cut = Vec::new();
        for piece in characters.chunks(piece) {
            cut.extend(parser.push(&piece.iter().collect::<String>()));
        }
        cut.extend(parser.finish());
        assert_eq!(whole, cut);
        assert!(whole.len() <= MAX_EVENTS);
        for event in whole {
            match event {
                BoxEvent::Box(found) => {
                    let placed = found.in_image(0, ImageSize { height: 3, width: 7 });
                    let b = placed.bbox;
                    assert!(0.0 <= b.x1 && b.x1 < b.x2 && b.x2 <= 7.0);
                    assert!(0.0 <= b.y1 && b.y1 < b.y2 && b.y2 <= 3.0);
                    assert!(placed.label.is_none_or(|l| !l.is_empty() && l.chars().count() <= 257));
                }
                BoxEvent::Malformed(malformed) => {
                    assert!(malformed.text.chars().count() <= 257 && !malformed.reason.is_empty());
                }
                _ => {}
            }
        }
    }
});
