//! The JSON files: forms that are read, and values that are refused with file, field and limit.

use qwen2vl_runtime::EarlyStopping;
use qwen2vl_testkit::check_all;
use serde_json::{Value, json};

use super::{Export, Place, config, says};

/// Sets, or with `null` removes, the value at a JSON pointer.
fn set(mut json: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = json.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(key)
    } else {
        parent.insert(key.to_owned(), value)
    };
    json
}

/// The same dimensions with the language model's fields at the top level, as older files have them.
fn flat_config() -> Value {
    let mut flat = config();
    let text = flat.as_object_mut().unwrap().remove("text_config").unwrap();
    flat.as_object_mut().unwrap().extend(text.as_object().unwrap().clone());
    flat
}

fn open_with(config: &Value) -> Result<qwen2vl_package::ModelPackage, qwen2vl_package::Error> {
    Place::new().open(&Export::new().json("config.json", config))
}

#[test]
fn all_forms_of_config_json_give_the_same_dimensions() {
    let want = open_with(&config()).unwrap().model;
    assert_eq!((want.text.hidden_size, want.text.head_dim, want.text.num_key_value_heads), (128, 32, 2));
    assert_eq!((want.vision.hidden_size, want.vision.depth, want.vision.num_heads), (128, 3, 4));
    assert_eq!(
        (want.vocab_size, want.max_position_embeddings, want.image_token_id),
        (151_936, 32_768, 151_655)
    );
    let forms = [
        ("flat", flat_config()),
        ("nested wins over flat", set(config(), "/hidden_size", json!(8192))),
        ("default ids", set(set(config(), "/image_token_id", Value::Null), "/video_token_id", Value::Null)),
        (
            "older channels",
            set(
                set(config(), "/vision_config/in_channels", Value::Null),
                "/vision_config/in_chans",
                json!(3),
            ),
        ),
        ("default patches", set(config(), "/vision_config/patch_size", Value::Null)),
        ("no rope scaling", set(config(), "/text_config/rope_scaling", Value::Null)),
        (
            "transformers 5",
            set(config(), "/text_config/rope_parameters", json!({ "mrope_section": [4, 6, 6] })),
        ),
        ("unknown fields", set(config(), "/text_config/new_field", json!({ "a": [1, null] }))),
    ];
    check_all(
        &forms,
        |f| f.0.to_owned(),
        |(_, form)| match open_with(form) {
            Ok(package) if package.model == want => Ok(()),
            Ok(package) => Err(format!("{:?}", package.model)),
            Err(error) => Err(error.to_string()),
        },
    );
}

#[test]
fn key_value_heads_default_to_heads_and_widths_may_differ() {
    let model = open_with(&set(config(), "/text_config/num_key_value_heads", Value::Null)).unwrap().model;
    assert_eq!(model.text.num_key_value_heads, 4);
    let wide =
        set(set(config(), "/vision_config/embed_dim", json!(320)), "/vision_config/num_heads", json!(5));
    let mut export = Export::new().json("config.json", &wide);
    for ir in ["openvino_vision_embeddings_model", "openvino_vision_embeddings_merger_model"] {
        let open = super::ir_xml(ir).replace(">128<", ">-1<").replace("?,128", "?,?");
        export = export.file(&format!("{ir}.xml"), open);
    }
    let model = Place::new().open(&export).unwrap().model;
    assert_eq!((model.vision.hidden_size, model.text.hidden_size), (320, 128));
}

#[test]
fn wrong_values_in_config_json_are_named_with_their_limits() {
    let cases = [
        ("/model_type", json!("qwen2_5_vl"), vec!["model_type is \"qwen2_5_vl\"", "\"qwen2_vl\""]),
        ("/model_type", Value::Null, vec!["model_type is missing"]),
        ("/vision_config", Value::Null, vec!["vision_config is missing"]),
        ("/text_config/hidden_size", json!(0), vec!["text_config.hidden_size is 0, it must be 1 to"]),
        ("/text_config/hidden_size", Value::Null, vec!["text_config.hidden_size is missing"]),
        (
            "/text_config/hidden_size",
            json!(130),
            vec!["hidden_size is 130", "multiple of num_attention_heads, 4"],
        ),
        ("/text_config/num_attention_heads", json!(0), vec!["num_attention_heads is 0"]),
        ("/text_config/num_key_value_heads", json!(0), vec!["num_key_value_heads is 0"]),
        (
            "/text_config/num_key_value_heads",
            json!(3),
            vec!["num_attention_heads is 4", "num_key_value_heads, 3"],
        ),
        (
            "/text_config/num_hidden_layers",
            json!(5_000_000),
            vec!["num_hidden_layers is 5000000, it must be 1 to 1024"],
        ),
        ("/text_config/vocab_size", json!(u64::MAX), vec!["vocab_size is 18446744073709551615"]),
        ("/text_config/vocab_size", json!(1000), vec!["image_token_id is 151655", "vocabulary size, 1000"]),
        ("/text_config/max_position_embeddings", json!(0), vec!["max_position_embeddings is 0"]),
        ("/text_config/intermediate_size", Value::Null, vec!["intermediate_size is missing"]),
        (
            "/text_config/rope_scaling/mrope_section",
            json!([4, 6]),
            vec!["rope_scaling.mrope_section is [4, 6]"],
        ),
        (
            "/text_config/rope_scaling/mrope_section",
            json!([4, 6, u64::MAX]),
            vec!["mrope_section", "half of the head's 32"],
        ),
        ("/video_token_id", json!(151_655), vec!["video_token_id is 151655, the same as image_token_id"]),
        (
            "/vision_config/embed_dim",
            json!(126),
            vec!["vision_config.embed_dim is 126", "multiple of num_heads, 4"],
        ),
        ("/vision_config/embed_dim", json!(120), vec!["embed_dim is 120", "multiple of 4 x num_heads"]),
        (
            "/vision_config/hidden_size",
            json!(64),
            vec!["vision_config.hidden_size is 64", "hidden_size, 128"],
        ),
        ("/vision_config/in_channels", json!(4), vec!["vision_config.in_channels is 4, it must be 3"]),
        ("/vision_config/patch_size", json!(0), vec!["vision_config.patch_size is 0"]),
        (
            "/vision_config/patch_size",
            json!(16),
            vec!["patch_size is 14, but config.json's vision_config has 16"],
        ),
        (
            "/vision_config/spatial_merge_size",
            json!(99),
            vec!["spatial_merge_size is 99, it must be 1 to 16"],
        ),
        ("/vision_config/depth", json!(0), vec!["vision_config.depth is 0"]),
        // The parser's own messages have line and column.
        ("/text_config/hidden_size", json!("128"), vec!["config.json: invalid type", "line 1 column"]),
        (
            "/text_config/hidden_size",
            json!(-128),
            vec!["config.json: invalid value: integer `-128`", "line 1"],
        ),
        ("/text_config/hidden_size", json!(128.5), vec!["config.json: invalid type: floating point"]),
        ("/text_config", json!([]), vec!["config.json: ", "line 1"]),
        ("/image_token_id", json!(1_u64 << 40), vec!["config.json: invalid value"]),
    ];
    check_all(
        &cases,
        |c| format!("{} = {}", c.0, c.1),
        |(pointer, value, parts)| says(open_with(&set(config(), pointer, value.clone())), parts),
    );
}

#[test]
fn wrong_values_of_the_flat_form_keep_their_line() {
    let text = serde_json::to_string_pretty(&set(flat_config(), "/vocab_size", json!("many"))).unwrap();
    let line = 1 + text.lines().position(|l| l.contains("vocab_size")).unwrap();
    let result = Place::new().open(&Export::new().file("config.json", text));
    says(result, &["config.json: invalid type: string \"many\"", &format!("line {line} ")]).unwrap();
    says(open_with(&set(flat_config(), "/hidden_size", json!(0))), &["config.json: hidden_size is 0"])
        .unwrap();
}

#[test]
fn files_that_are_no_json_are_named_with_the_line() {
    let place = Place::new();
    for file in [
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
    ] {
        let result = place.open(&Export::new().file(file, "{\n  \"a\": 1,\n  oops\n}"));
        says(result, &[file, "line 3 column"]).unwrap();
        says(place.open(&Export::new().file(file, "")), &[file, "EOF"]).unwrap();
        says(place.open(&Export::new().file(file, [0xff, 0xfe])), &[file, "UTF-8"]).unwrap();
        std::fs::remove_dir_all(place.model()).unwrap();
    }
    let huge = format!("{{\"x\": {}", "[".repeat(200_000));
    says(place.open(&Export::new().file("config.json", huge)), &["config.json", "EOF while parsing a list"])
        .unwrap();
    let blank = " ".repeat((16 << 20) + 1);
    says(place.open(&Export::new().file("config.json", blank)), &["config.json has 16777217 bytes"]).unwrap();
}

#[test]
fn wrong_values_of_the_other_files_are_named() {
    let image = "preprocessor_config.json";
    let video = "video_preprocessor_config.json";
    let generation = "generation_config.json";
    let cases = [
        (image, json!({ "max_pixels": 0 }), vec!["max_pixels is 0"]),
        (image, json!({ "max_pixels": 1_u64 << 40 }), vec!["max_pixels is 1099511627776"]),
        (
            image,
            json!({ "min_pixels": 3136, "max_pixels": 3000 }),
            vec!["max_pixels is 3000, it must be at least min_pixels, 3136"],
        ),
        (image, json!({ "size": { "shortest_edge": 10 } }), vec!["size.longest_edge is missing"]),
        (image, json!({ "size": { "height": 3, "width": 3 } }), vec!["size.shortest_edge is missing"]),
        (image, json!({ "patch_size": 16 }), vec!["patch_size is 16", "has 14"]),
        (image, json!({ "merge_size": 0 }), vec!["merge_size is 0", "has 2"]),
        (image, json!({ "resample": 2 }), vec!["resample is 2, only 3"]),
        (image, json!({ "image_mean": [0.5] }), vec!["image_mean has 1 values"]),
        (image, json!({ "image_mean": [0.5, 0.5, 1e300] }), vec!["image_mean", "3 finite numbers"]),
        (image, json!({ "image_std": [0.5, 0.0, 0.5] }), vec!["image_std is [0.5, 0.0, 0.5]"]),
        (image, json!({ "rescale_factor": 0.0 }), vec!["rescale_factor is 0"]),
        (video, json!({ "max_pixels": 0 }), vec!["video_preprocessor_config.json: max_pixels is 0"]),
        (generation, json!({ "temperature": 0.0 }), vec!["generation_config.json: temperature is 0"]),
        (generation, json!({ "temperature": 1e300 }), vec!["temperature is inf"]),
        (generation, json!({ "min_p": 1.5 }), vec!["min_p is 1.5, allowed is 0 to 1"]),
        (generation, json!({ "presence_penalty": -3 }), vec!["presence_penalty is -3, allowed is -2 to 2"]),
        (generation, json!({ "frequency_penalty": 1e300 }), vec!["frequency_penalty is inf"]),
        (
            generation,
            json!({ "min_new_tokens": 9, "max_new_tokens": 8 }),
            vec!["generation_config.json: min_new_tokens is 9, allowed is 0 to max_new_tokens, 8"],
        ),
        (generation, json!({ "suppress_tokens": [151_936] }), vec!["suppress_tokens is 151936", "151936"]),
        (generation, json!({ "suppress_tokens": [-1] }), vec!["generation_config.json"]),
        (generation, json!({ "logit_bias": { "200000": 1 } }), vec!["logit_bias is 200000", "151936"]),
        (generation, json!({ "logit_bias": { "a": 1 } }), vec!["generation_config.json"]),
        (generation, json!({ "sequence_bias": [[[200_000], 1.0]] }), vec!["sequence_bias is 200000"]),
        (generation, json!({ "sequence_bias": [[[1], 5000]] }), vec!["sequence_bias is 5000 for token 1"]),
        (generation, json!({ "sequence_bias": [[[1, 2], 1.0]] }), vec!["sequence_bias", "2 ids", "single"]),
        (
            generation,
            json!({ "logit_bias": { "7": 1.0 }, "sequence_bias": [[[7], 2.0]] }),
            vec!["sequence_bias has 2 for token 7, which has 1 already"],
        ),
        (generation, json!({ "max_input_tokens": 0 }), vec!["max_input_tokens is 0, allowed is 1 or more"]),
        (generation, json!({ "stop_strings": ["a", ""] }), vec!["stop_strings has an empty text"]),
        (generation, json!({ "stop_strings": 5 }), vec!["expected a text or a list of them"]),
        (generation, json!({ "num_beams": 65 }), vec!["num_beams is 65, allowed is 1 to 64"]),
        (
            generation,
            json!({ "num_beams": 2, "do_sample": true }),
            vec!["num_beams is 2, allowed is 1 with do_sample"],
        ),
        (
            generation,
            json!({ "num_return_sequences": 2 }),
            vec!["num_return_sequences is 2, allowed is 1 without num_beams"],
        ),
        (generation, json!({ "early_stopping": "soon" }), vec!["early_stopping is \"soon\"", "never"]),
        (generation, json!({ "early_stopping": 1 }), vec!["expected true, false or \"never\""]),
        (generation, json!({ "top_p": 1.5 }), vec!["top_p is 1.5, allowed is above 0"]),
        (generation, json!({ "repetition_penalty": -1 }), vec!["repetition_penalty is -1"]),
        (generation, json!({ "max_new_tokens": 0 }), vec!["max_new_tokens is 0"]),
        (generation, json!({ "eos_token_id": [1, 999_999] }), vec!["eos_token_id has 999999"]),
        (
            generation,
            json!({ "eos_token_id": "x" }),
            vec!["generation_config.json: expected a token id or a list"],
        ),
        ("chat_template.json", json!({ "template": "x" }), vec!["chat_template is missing"]),
        ("chat_template.json", json!({ "chat_template": 3 }), vec!["expected a template or a list"]),
        (
            "chat_template.json",
            json!({ "chat_template": [{ "name": "a", "template": "x" }] }),
            vec!["[\"a\"]", "\"default\""],
        ),
    ];
    check_all(
        &cases,
        |c| format!("{} {}", c.0, c.1),
        |(file, content, parts)| says(Place::new().open(&Export::new().json(file, content)), parts),
    );
}

#[test]
fn a_low_limit_for_images_does_not_make_the_video_classs_limit_an_error() {
    let content = json!({ "max_pixels": 50_000 });
    let package = Place::new().open(&Export::new().json("preprocessor_config.json", &content)).unwrap();
    let limits = package.video_preprocess.pixel_limits;
    assert_eq!((limits.min_pixels, limits.max_pixels), (100_352, 50_000));
}

#[test]
fn mean_deviation_and_switches_are_taken_from_the_file() {
    let content = json!({
        "image_mean": [0.5, 0.25, 0.125], "image_std": [0.5, 1, 2], "rescale_factor": 0.5, "do_resize": false,
        "do_rescale": false, "do_normalize": false, "resample": 3, "patch_size": null, "size": null
    });
    let package = Place::new().open(&Export::new().json("preprocessor_config.json", &content)).unwrap();
    let options = package.preprocess;
    assert_eq!((options.image_mean, options.image_std), ([0.5, 0.25, 0.125], [0.5, 1.0, 2.0]));
    assert_eq!((options.do_resize, options.do_rescale, options.do_normalize), (false, false, false));
    assert_eq!((options.rescale_factor, options.geometry), (0.5, package.model.geometry));
}

#[test]
fn without_a_template_of_its_own_the_tokenizers_is_used() {
    let bare = Export::new().without("chat_template.jinja");
    for template in
        [json!("t"), json!([{ "name": "x", "template": "y" }, { "name": "default", "template": "t" }])]
    {
        let export = bare.clone().json("tokenizer_config.json", &json!({ "chat_template": template }));
        assert_eq!(Place::new().open(&export).unwrap().chat_template, "t");
    }
}

#[test]
fn generation_options_are_taken_from_the_file() {
    let content = json!({
        "min_p": 0.05, "presence_penalty": 0.5, "frequency_penalty": -0.5, "no_repeat_ngram_size": 3,
        "suppress_tokens": [5, 6], "logit_bias": { "7": 1.5 }, "sequence_bias": [[[8], -2.0], [[7], 1.5]],
        "min_new_tokens": 300, "max_input_tokens": 4096, "stop_strings": "END", "max_new_tokens": null
    });
    let package = Place::new().open(&Export::new().json("generation_config.json", &content)).unwrap();
    let generation = &package.generation;
    assert_eq!(
        (generation.min_p, generation.presence_penalty, generation.frequency_penalty),
        (0.05, 0.5, -0.5)
    );
    assert_eq!((generation.no_repeat_ngram_size, &generation.suppress_tokens[..]), (3, &[5, 6][..]));
    assert_eq!(generation.logit_bias, [(7, 1.5), (8, -2.0)].into());
    assert_eq!((generation.min_new_tokens, generation.max_new_tokens), (300, 300));
    assert_eq!((generation.max_input_tokens, package.stop_strings), (Some(4096), vec!["END".to_owned()]));
}

#[test]
fn beams_are_taken_from_the_file() {
    for (early_stopping, want) in [
        (json!(false), EarlyStopping::Heuristic),
        (json!(true), EarlyStopping::Yes),
        (json!("never"), EarlyStopping::Never),
    ] {
        let content = json!({
            "num_beams": 4, "length_penalty": -0.5, "early_stopping": early_stopping, "num_return_sequences": 2
        });
        let package = Place::new().open(&Export::new().json("generation_config.json", &content)).unwrap();
        let generation = &package.generation;
        assert_eq!((generation.num_beams, generation.num_return_sequences), (4, 2));
        assert_eq!((generation.length_penalty, generation.early_stopping), (-0.5, want));
    }
}
