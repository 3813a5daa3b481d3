//! Against transformers 4.57.6: `tools/reference/package.py` wrote what it takes from which file.

use std::collections::BTreeMap;

use qwen2vl_package::{Error, ModelPackage};
use qwen2vl_preprocess::PreprocessOptions;
use qwen2vl_testkit::{check_all, golden, read_jsonl};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Export, Place};

/// The export with other files in place of `replaced`.
fn open(replaced: &[&str], files: &BTreeMap<String, Value>) -> Result<ModelPackage, Error> {
    let mut export = replaced.iter().fold(Export::new(), |export, file| export.without(file));
    for (name, content) in files {
        export = match content {
            Value::String(text) => export.file(name, text),
            json => export.json(name, json),
        };
    }
    Place::new().open(&export)
}

#[derive(Deserialize)]
struct ProcessorCase {
    files: BTreeMap<String, Value>,
    image: Option<[u64; 2]>,
    video: Option<[u64; 2]>,
}

#[test]
fn pixel_limits_are_those_of_transformers() {
    let cases: Vec<ProcessorCase> = read_jsonl(&golden("package/processors.jsonl"));
    let limits = |o: &PreprocessOptions| [o.pixel_limits.min_pixels, o.pixel_limits.max_pixels];
    check_all(
        &cases,
        |c| json!(c.files).to_string(),
        |case| {
            let got = open(&["preprocessor_config.json"], &case.files);
            match (got, case.image, case.video) {
                (Ok(package), Some(image), Some(video)) => {
                    let got = (limits(&package.preprocess), limits(&package.video_preprocess));
                    if got == (image, video) {
                        Ok(())
                    } else {
                        Err(format!("got {got:?}, want {:?}", (image, video)))
                    }
                }
                // A model is refused where either of the two processors is.
                (Err(Error::Value { .. }), image, video) if image.is_none() || video.is_none() => Ok(()),
                (got, image, video) => Err(format!("got {got:?}, want {image:?} and {video:?}")),
            }
        },
    );
}

#[derive(Deserialize)]
struct TemplateCase {
    files: BTreeMap<String, Value>,
    template: Option<String>,
}

#[test]
fn the_chat_template_comes_from_the_file_that_transformers_takes() {
    let cases: Vec<TemplateCase> = read_jsonl(&golden("package/templates.jsonl"));
    check_all(
        &cases,
        |c| json!(c.files).to_string(),
        |case| match (open(&["chat_template.jinja"], &case.files), &case.template) {
            (Ok(package), Some(want)) if package.chat_template == *want => Ok(()),
            (Err(Error::Incomplete { .. }), None) => Ok(()),
            (got, want) => Err(format!("got {got:?}, want {want:?}")),
        },
    );
}

#[derive(Deserialize)]
struct GenerationCase {
    file: Option<Value>,
    fields: GenerationFields,
}

#[derive(Deserialize)]
struct GenerationFields {
    do_sample: bool,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    repetition_penalty: f32,
    eos_token_id: Option<Value>,
    max_new_tokens: Option<usize>,
}

#[test]
fn generation_defaults_are_those_of_transformers() {
    let cases: Vec<GenerationCase> = read_jsonl(&golden("package/generation.jsonl"));
    check_all(
        &cases,
        |c| json!(c.file).to_string(),
        |case| {
            let files =
                case.file.iter().map(|file| ("generation_config.json".to_owned(), file.clone())).collect();
            let got = open(&["generation_config.json"], &files).map_err(|e| e.to_string())?.generation;
            let want = &case.fields;
            // Where transformers knows no stop token at all, the model's own is used: answers would never end.
            let stop = match &want.eos_token_id {
                None => vec![151_645],
                Some(Value::Array(ids)) => {
                    ids.iter().filter_map(|id| id.as_u64().map(|id| id as u32)).collect()
                }
                Some(id) => vec![id.as_u64().unwrap() as u32],
            };
            let mut same =
                got.do_sample == want.do_sample && got.repetition_penalty == want.repetition_penalty;
            same &= got.stop_token_ids == stop;
            // A null is no filter there, as the defaults here are once `do_sample` is off.
            same &= want.temperature.is_none_or(|v| v == got.temperature);
            same &= want.top_k.is_none_or(|v| v == got.top_k) && want.top_p.is_none_or(|v| v == got.top_p);
            same &= want.max_new_tokens.unwrap_or(256) == got.max_new_tokens;
            if same { Ok(()) } else { Err(format!("{got:?}")) }
        },
    );
}
