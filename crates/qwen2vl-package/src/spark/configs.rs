//! The JSON files of an export, from what a saved annotator has: dimensions from its IRs, token ids from its features,
//! the rest from its parameters, or as every Qwen2-VL has it.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::Annotator;
use super::features::Features;
use crate::Error;
use crate::cache::FileList;
use crate::export;
use crate::ir::{Ir, shape_text};

/// The template of Qwen2-VL-2B-Instruct; a saved annotator has none.
const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");

/// `max_position_embeddings` of Qwen2-VL: positions are computed in the IR, which does not say.
const MAX_POSITIONS: u64 = 32_768;
/// `preprocessor_config.json` of Qwen2-VL-2B-Instruct.
const MIN_PIXELS: u64 = 3136;
const MAX_PIXELS: u64 = 12_845_056;
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
/// Ends a document; Qwen2-VL's `generation_config.json` lists it beside `<|im_end|>`.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Writes the configs into `target`, which has the IRs already; `source` is the package, for messages.
pub(super) fn write(
    target: &Path,
    source: &Path,
    annotator: &Annotator,
    features: &Features,
    list: &mut FileList,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let source = source.join(&annotator.folder);
    let set = Set { map: &annotator.metadata.param_map, path: source.join("metadata/part-00000") };
    set.check_engine()?;
    list.write_json(target, "config.json", &config(target, &source, features, notes)?)?;
    list.write_json(target, "generation_config.json", &generation_config(&set, features, notes))?;
    list.write_json(target, "preprocessor_config.json", &preprocessor_config(&set, notes)?)?;
    list.write(target, "chat_template.jinja", |file| file.write_all(CHAT_TEMPLATE.as_bytes()))
}

/// The parameters that someone set.
struct Set<'a> {
    map: &'a Map<String, Value>,
    /// For messages.
    path: PathBuf,
}

impl Set<'_> {
    fn error(&self, name: &str, problem: String) -> Error {
        Error::Value { path: self.path.clone(), field: name.to_owned(), problem }
    }

    fn check_engine(&self) -> Result<(), Error> {
        match self.map.get("engine").map(|v| v.as_str().unwrap_or_default()) {
            None | Some("openvino") => Ok(()),
            Some(other) => Err(self
                .error("engine", format!("is {other:?}, only models of the engine \"openvino\" are read"))),
        }
    }

    /// A number in a range; one outside of it is noted and not used.
    fn number(&self, name: &str, allowed: RangeInclusive<f64>, notes: &mut Vec<String>) -> Option<f64> {
        let value = self.map.get(name)?;
        let number = value.as_f64().filter(|n| allowed.contains(n));
        if number.is_none() {
            notes.push(format!(
                "the parameter {name} is {value}, allowed is {} to {}: not used",
                allowed.start(),
                allowed.end()
            ));
        }
        number
    }

    fn whole(&self, name: &str, allowed: RangeInclusive<u64>, notes: &mut Vec<String>) -> Option<u64> {
        let range = *allowed.start() as f64..=*allowed.end() as f64;
        self.number(name, range, notes).map(|n| n as u64)
    }

    /// A list of token ids, without what can be none.
    fn token_ids(&self, name: &str) -> impl Iterator<Item = u32> {
        let list = self.map.get(name).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok())
    }

    fn switch(&self, name: &str) -> Option<bool> {
        self.map.get(name).and_then(Value::as_bool)
    }

    fn channels(
        &self,
        name: &str,
        default: [f64; 3],
        allowed: RangeInclusive<f64>,
    ) -> Result<[f64; 3], Error> {
        let Some(value) = self.map.get(name) else { return Ok(default) };
        let numbers: Option<Vec<f64>> = value.as_array().and_then(|a| a.iter().map(Value::as_f64).collect());
        numbers
            .and_then(|n| <[f64; 3]>::try_from(n).ok())
            .filter(|n| n.iter().all(|v| allowed.contains(v)))
            .ok_or_else(|| {
                let (least, most) = (allowed.start(), allowed.end());
                self.error(name, format!("is {value}, it must be 3 numbers from {least} to {most}"))
            })
    }
}

fn generation_config(set: &Set<'_>, features: &Features, notes: &mut Vec<String>) -> Value {
    let mut stop = vec![features.generation.eos];
    stop.extend(features.added(END_OF_TEXT));
    stop.extend(set.token_ids("stopTokenIds"));
    let mut seen = std::collections::HashSet::new();
    stop.retain(|id| seen.insert(*id));
    let mut config = json!({
        "bos_token_id": features.generation.bos, "pad_token_id": features.generation.pad, "eos_token_id": stop,
        "do_sample": set.switch("doSample").unwrap_or(false),
    });
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            config[name] = value;
        }
    };
    const MOST: u64 = 1 << 31;
    const MOST_ROWS: u64 = 64;
    let longest = set.whole("maxOutputLength", 1..=MOST, notes);
    put("max_new_tokens", longest.map(Value::from));
    put("min_new_tokens", set.whole("minOutputLength", 0..=longest.unwrap_or(MOST), notes).map(Value::from));
    put("max_input_tokens", set.whole("maxInputLength", 1..=MOST, notes).map(Value::from));
    put("no_repeat_ngram_size", set.whole("noRepeatNgramSize", 0..=MOST, notes).map(Value::from));
    let vocabulary = features.generation.vocab_size;
    let (ignored, unknown): (Vec<u32>, Vec<u32>) =
        set.token_ids("ignoreTokenIds").partition(|id| *id < vocabulary);
    if !unknown.is_empty() {
        notes.push(format!(
            "the parameter ignoreTokenIds has {unknown:?}, allowed is below the vocabulary size, {vocabulary}: not used"
        ));
    }
    put("suppress_tokens", (!ignored.is_empty()).then(|| json!(ignored)));
    put("temperature", set.number("temperature", 1e-6..=1e6, notes).map(Value::from));
    put("top_p", set.number("topP", 1e-6..=1.0, notes).map(Value::from));
    put("repetition_penalty", set.number("repetitionPenalty", 1e-6..=1e6, notes).map(Value::from));
    // Spark NLP's -1 is "all", which is 0 in Hugging Face's files.
    put("top_k", set.number("topK", -1.0..=MOST as f64, notes).map(|k| json!(k.max(0.0) as u64)));
    put("seed", set.whole("randomSeed", 0..=1 << 53, notes).map(Value::from));
    // Beams are not drawn, and without both all answers would be the same.
    let drawn = set.switch("doSample").unwrap_or(false);
    let beams = set.whole("beamSize", 1..=if drawn { 1 } else { MOST_ROWS }, notes);
    put("num_beams", beams.map(Value::from));
    let most = if drawn { MOST_ROWS } else { beams.unwrap_or(1) };
    put("num_return_sequences", set.whole("nReturnSequences", 1..=most, notes).map(Value::from));
    config
}

fn preprocessor_config(set: &Set<'_>, notes: &mut Vec<String>) -> Result<Value, Error> {
    const MOST: u64 = 1 << 32;
    let mean = set.channels("imageMean", CLIP_MEAN, -1e3..=1e3)?;
    let std = set.channels("imageStd", CLIP_STD, 1e-3..=1e3)?;
    for (name, value, usual) in [("imageMean", mean, CLIP_MEAN), ("imageStd", std, CLIP_STD)] {
        if value != usual {
            notes.push(format!("{name} is {value:?}, Qwen2-VL was trained with {usual:?}"));
        }
    }
    let max = set.whole("maxPixelValue", 1..=MOST, notes).unwrap_or(MAX_PIXELS);
    let min = set.whole("minPixelValue", 1..=MOST, notes).unwrap_or(MIN_PIXELS.min(max));
    if min > max {
        return Err(set.error("minPixelValue", format!("is {min}, it must be at most maxPixelValue, {max}")));
    }
    Ok(json!({
        "image_mean": mean, "image_std": std, "min_pixels": min, "max_pixels": max,
        "do_resize": set.switch("doResize").unwrap_or(true),
        "do_normalize": set.switch("doNormalize").unwrap_or(true),
    }))
}

/// `config.json`, from the IRs.
fn config(
    target: &Path,
    source: &Path,
    features: &Features,
    notes: &mut Vec<String>,
) -> Result<Value, Error> {
    let read = |name: &str| {
        let file = format!("{name}.xml");
        let path = source.join(&file).join(&file);
        Ir::read(&target.join(&file), &path).map(|ir| Shapes { path, ir })
    };
    let patches = read(export::VISION_EMBEDDINGS)?;
    let merger = read(export::MERGER)?;
    let language = read(export::LANGUAGE_MODEL)?;

    let hidden = language.input_dim("inputs_embeds", 2)?;
    let vocabulary = language.output_dim("its output", 2)?;
    if vocabulary != u64::from(features.generation.vocab_size) {
        notes.push(format!(
            "generationConfig.vocabSize is {}, the language model has {vocabulary}",
            features.generation.vocab_size
        ));
    }
    let state = language.ir.states.first().map_or(&[][..], |s| &s.dims);
    let [_, Some(kv_heads), _, Some(head)] = *state else {
        return Err(
            language.unknown("the heads of its KV cache", &format!("its state is {}", shape_text(state)))
        );
    };
    let intermediate = language.ir.swish_width;

    let weights = patches.ir.patch_weights.clone().unwrap_or_default();
    let [Some(width), Some(channels), Some(temporal), Some(patch), Some(patch_width)] = *weights else {
        let found = format!("its convolution has {}", shape_text(&weights));
        return Err(patches.unknown("the size of its patches", &found));
    };
    if channels != 3 || patch != patch_width {
        let found = format!("its convolution has {}", shape_text(&weights));
        return Err(patches.unknown("square patches of 3 channels", &found));
    }
    let attention = merger.ir.attention.first().map_or(&[][..], Vec::as_slice);
    let vision_head = attention.last().copied().flatten().filter(|h| *h > 0);
    let Some(vision_head) = vision_head else {
        let found = format!("the inputs of its attention are {}", shape_text(attention));
        return Err(merger.unknown("the heads of its attention", &found));
    };
    let merged = merger.ir.gelu_width.filter(|m| *m > 0 && m.is_multiple_of(width)).map(|m| m / width);
    let merge = merged.map(u64::isqrt).filter(|m| Some(m * m) == merged);
    Ok(json!({
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "image_token_id": features.added("<|image_pad|>"),
        "video_token_id": features.added("<|video_pad|>"),
        "vision_start_token_id": features.added("<|vision_start|>"),
        "vision_end_token_id": features.added("<|vision_end|>"),
        "bos_token_id": features.generation.bos,
        "eos_token_id": features.generation.eos,
        "text_config": {
            "hidden_size": hidden,
            "intermediate_size": intermediate.ok_or_else(|| language.unknown("the width of its MLP", "it has no Swish"))?,
            "num_hidden_layers": language.ir.states.len() / 2,
            "num_attention_heads": hidden / head.max(1),
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": MAX_POSITIONS,
            "vocab_size": vocabulary,
        },
        "vision_config": {
            "depth": merger.ir.attention.len(),
            "embed_dim": width,
            "hidden_size": hidden,
            "num_heads": width / vision_head,
            "in_channels": channels,
            "patch_size": patch,
            "temporal_patch_size": temporal,
            "spatial_merge_size": merge.ok_or_else(|| {
                merger.unknown("how many patches it merges", "the width of its last MLP is no square of patches")
            })?,
        },
    }))
}

/// An IR, for dimensions that must be fixed in it.
struct Shapes {
    /// For messages.
    path: PathBuf,
    ir: Ir,
}

impl Shapes {
    fn input_dim(&self, input: &str, axis: usize) -> Result<u64, Error> {
        let port = self.ir.input(input);
        port.and_then(|p| p.dims.get(axis).copied().flatten()).ok_or_else(|| {
            let found =
                port.map_or("it has no such input".to_owned(), |p| format!("it is {}", shape_text(&p.dims)));
            self.unknown(&format!("the width of its input {input}"), &found)
        })
    }

    fn output_dim(&self, what: &str, axis: usize) -> Result<u64, Error> {
        let dims = self.ir.outputs.first().map_or(&[][..], |p| &p.dims);
        let dim = dims.get(axis).copied().flatten();
        dim.ok_or_else(|| {
            self.unknown(&format!("the width of {what}"), &format!("it is {}", shape_text(dims)))
        })
    }

    fn unknown(&self, what: &str, found: &str) -> Error {
        let reason = format!("cannot tell {what}: {found}");
        Error::Ir { path: self.path.clone(), reason }
    }
}
