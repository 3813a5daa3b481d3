//! Bytes from outside never panic, never leave the cache, and never half-open.

use proptest::prelude::*;
use qwen2vl_package::ModelPackage;
use serde_json::Value;

use super::{Export, Place, config};

const JSON_FILES: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
];

/// JSON of any form, with the names that are read among its keys.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "model_type",
        "text_config",
        "vision_config",
        "hidden_size",
        "embed_dim",
        "num_heads",
        "size",
        "shortest_edge",
        "longest_edge",
        "min_pixels",
        "max_pixels",
        "eos_token_id",
        "temperature",
        "top_k",
        "chat_template",
        "name",
        "image_mean",
        "rope_scaling",
        "mrope_section",
    ]);
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Value>()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn json_of_any_form_is_read_or_refused(file in 0..JSON_FILES.len(), content in any_json()) {
        let _ = Place::new().open(&Export::new().json(JSON_FILES[file], &content));
    }

    #[test]
    fn any_number_at_any_place_of_a_config_is_read_or_refused(
        field in 0..12_usize,
        number in prop_oneof![any::<u64>(), 0..300_u64],
    ) {
        let mut config = config();
        let text = config["text_config"].as_object_mut().unwrap();
        if let Some(value) = text.values_mut().nth(field) {
            *value = number.into();
        } else if let Some(value) = config["vision_config"].as_object_mut().unwrap().values_mut().nth(field - 8) {
            *value = number.into();
        }
        if let Ok(package) = Place::new().open(&Export::new().json("config.json", &config)) {
            let model = package.model;
            prop_assert_eq!(model.text.hidden_size % model.text.head_dim, 0);
            prop_assert!(model.geometry.patch_len() > 0 && model.vision.hidden_size >= model.vision.num_heads);
        }
    }

    #[test]
    fn zips_with_any_bytes_changed_are_whole_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let export = Export::new();
        let mut bytes = export.zip("m/");
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let place = Place::new();
        let opened = ModelPackage::open_zip_bytes("m", &bytes, &place.cache());
        if opened.is_err() {
            prop_assert!(place.cached().len() <= 1);
        } else {
            for (name, content) in &export.0 {
                let unpacked = std::fs::read(opened.as_ref().unwrap().root.join(name));
                // A changed name only makes a file another one, if the model is whole without it.
                prop_assert!(unpacked.map_or(true, |u| u == *content));
            }
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let place = Place::new();
        prop_assert!(place.open_zip(&bytes).is_err());
        let with_magic = [b"PK\x03\x04".as_slice(), &bytes].concat();
        prop_assert!(place.open_zip(&with_magic).is_err());
        prop_assert!(place.cached().is_empty());
    }
}
