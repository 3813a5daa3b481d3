//! `config.json` → [`ModelConfig`].
//!
//! Two spellings exist: transformers 4.52 and later nest the language model's fields in `text_config`, older files have
//! them at the top level. As in transformers, `text_config` wins where both are there. `vision_config.embed_dim` is the
//! width of the vision blocks, `vision_config.hidden_size` that of the merger's output, which must fit the language
//! model. Dimensions have no defaults here, other than in transformers, whose defaults are those of another model.

use std::path::Path;

use qwen2vl_runtime::{ModelConfig, TextConfig, VisionConfig};
use qwen2vl_types::{PatchGeometry, TokenId};
use serde::Deserialize;

use crate::Error;
use crate::configs::generation::TokenIds;
use crate::json::{Checker, parse};

/// The only `model_type` whose preprocessing and positions this project follows.
const MODEL_TYPE: &str = "qwen2_vl";

// Limits far above any model of the family (the 72B has 80 layers of width 8192): a damaged file must not make later
// layers allocate from it.
const MAX_WIDTH: u64 = 1 << 17;
const MAX_LAYERS: u64 = 1024;
const MAX_HEADS: u64 = 4096;
const MAX_VOCABULARY: u64 = 1 << 24;
const MAX_POSITIONS: u64 = 1 << 24;
const MAX_PATCH: u32 = 256;
const MAX_MERGE: u32 = 16;

/// The fields of the file that are used.
#[derive(Debug, Deserialize)]
struct ConfigFile {
    model_type: Option<String>,
    image_token_id: Option<TokenId>,
    video_token_id: Option<TokenId>,
    vision_config: Option<VisionFields>,
    text_config: Option<TextFields>,
    eos_token_id: Option<TokenIds>,
}

#[derive(Debug, Deserialize)]
struct VisionFields {
    depth: Option<u64>,
    embed_dim: Option<u64>,
    hidden_size: Option<u64>,
    num_heads: Option<u64>,
    in_channels: Option<u64>,
    in_chans: Option<u64>,
    patch_size: Option<u64>,
    spatial_merge_size: Option<u64>,
    temporal_patch_size: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct TextFields {
    hidden_size: Option<u64>,
    num_hidden_layers: Option<u64>,
    num_attention_heads: Option<u64>,
    num_key_value_heads: Option<u64>,
    intermediate_size: Option<u64>,
    max_position_embeddings: Option<u64>,
    vocab_size: Option<u64>,
    /// transformers 4.
    rope_scaling: Option<RopeFields>,
    /// transformers 5.
    rope_parameters: Option<RopeFields>,
    eos_token_id: Option<TokenIds>,
}

#[derive(Debug, Deserialize)]
struct RopeFields {
    mrope_section: Option<Vec<u64>>,
}

/// A parsed `config.json`.
#[derive(Debug)]
pub(crate) struct Config<'a> {
    path: &'a Path,
    file: ConfigFile,
    text: TextFields,
    text_prefix: &'static str,
}

impl<'a> Config<'a> {
    /// Parses the content of `path`.
    pub fn parse(path: &'a Path, text: &str) -> Result<Self, Error> {
        let mut file: ConfigFile = parse(path, text)?;
        // A second pass over the small file: with `serde(flatten)` the errors would lose their lines.
        let (text, text_prefix) = match file.text_config.take() {
            Some(nested) => (nested, "text_config."),
            None => (parse(path, text)?, ""),
        };
        Ok(Self { path, file, text, text_prefix })
    }

    /// `eos_token_id`, which transformers uses where no `generation_config.json` is.
    pub fn eos_token_ids(&self) -> Vec<TokenId> {
        let own = self.file.eos_token_id.as_ref().or(self.text.eos_token_id.as_ref());
        own.map(TokenIds::to_vec).unwrap_or_default()
    }

    /// Checks all values.
    pub fn model_config(&self) -> Result<ModelConfig, Error> {
        let (path, file, text) = (self.path, &self.file, &self.text);
        let top = Checker { path, prefix: "" };
        match file.model_type.as_deref() {
            Some(MODEL_TYPE) => {}
            Some(other) => {
                return Err(
                    top.error("model_type", format!("is {other:?}, only {MODEL_TYPE:?} is supported"))
                );
            }
            None => return Err(top.error("model_type", format!("is missing, it must be {MODEL_TYPE:?}"))),
        }
        let at = Checker { path, prefix: self.text_prefix };
        let vocab_size = at.dimension("vocab_size", text.vocab_size, MAX_VOCABULARY)?;
        let token = |field: &str, id: Option<TokenId>, default| {
            let id = id.unwrap_or(default);
            if id as usize >= vocab_size {
                return Err(
                    top.error(field, format!("is {id}, it must be below the vocabulary size, {vocab_size}"))
                );
            }
            Ok(id)
        };
        let image_token_id = token("image_token_id", file.image_token_id, 151_655)?;
        let video_token_id = token("video_token_id", file.video_token_id, 151_656)?;
        if image_token_id == video_token_id {
            return Err(
                top.error("video_token_id", format!("is {video_token_id}, the same as image_token_id"))
            );
        }
        let positions = text.max_position_embeddings.or(Some(32_768));
        let text = text_config(text, at)?;
        let vision = file.vision_config.as_ref().ok_or_else(|| top.error("vision_config", "is missing"))?;
        let (vision, geometry) =
            vision_config(vision, text.hidden_size, Checker { path, prefix: "vision_config." })?;
        Ok(ModelConfig {
            geometry,
            image_token_id,
            video_token_id,
            max_position_embeddings: at.dimension("max_position_embeddings", positions, MAX_POSITIONS)?,
            vocab_size,
            vision,
            text,
        })
    }
}

fn text_config(text: &TextFields, at: Checker<'_>) -> Result<TextConfig, Error> {
    let hidden_size = at.dimension("hidden_size", text.hidden_size, MAX_WIDTH)?;
    let num_hidden_layers = at.dimension("num_hidden_layers", text.num_hidden_layers, MAX_LAYERS)?;
    let heads = at.dimension("num_attention_heads", text.num_attention_heads, MAX_HEADS)?;
    let kv_heads = text.num_key_value_heads.or(text.num_attention_heads);
    let num_key_value_heads = at.dimension("num_key_value_heads", kv_heads, MAX_HEADS)?;
    let head_dim = at.quotient("hidden_size", hidden_size, "num_attention_heads", heads)?;
    at.quotient("num_attention_heads", heads, "num_key_value_heads", num_key_value_heads)?;
    let rope = [("rope_scaling", &text.rope_scaling), ("rope_parameters", &text.rope_parameters)];
    for (field, rope) in rope {
        let Some(section) = rope.as_ref().and_then(|r| r.mrope_section.as_ref()) else {
            continue;
        };
        let sum = section.iter().fold(0u64, |sum, s| sum.saturating_add(*s));
        if section.len() != 3 || sum.saturating_mul(2) != head_dim as u64 {
            let problem =
                format!("is {section:?}, it must be 3 numbers that add up to half of the head's {head_dim}");
            return Err(at.error(&format!("{field}.mrope_section"), problem));
        }
    }
    Ok(TextConfig {
        hidden_size,
        num_hidden_layers,
        num_key_value_heads,
        head_dim,
        intermediate_size: at.dimension("intermediate_size", text.intermediate_size, MAX_WIDTH * 8)?,
    })
}

fn vision_config(
    vision: &VisionFields,
    text_hidden_size: usize,
    at: Checker<'_>,
) -> Result<(VisionConfig, PatchGeometry), Error> {
    let hidden_size = at.dimension("embed_dim", vision.embed_dim, MAX_WIDTH)?;
    let num_heads = at.dimension("num_heads", vision.num_heads, MAX_HEADS)?;
    let head_dim = at.quotient("embed_dim", hidden_size, "num_heads", num_heads)?;
    if !head_dim.is_multiple_of(4) {
        let problem = format!(
            "is {hidden_size}, it must be a multiple of 4 x num_heads: half a head for rows, half for columns"
        );
        return Err(at.error("embed_dim", problem));
    }
    let output = vision.hidden_size.unwrap_or(text_hidden_size as u64);
    if output != text_hidden_size as u64 {
        let problem = format!("is {output}, it must be the language model's hidden_size, {text_hidden_size}");
        return Err(at.error("hidden_size", problem));
    }
    for (field, channels) in [("in_channels", vision.in_channels), ("in_chans", vision.in_chans)] {
        if channels.is_some_and(|c| c != 3) {
            return Err(at.error(field, format!("is {}, it must be 3", channels.unwrap_or_default())));
        }
    }
    let geometry = PatchGeometry {
        patch_size: at.dimension_u32("patch_size", vision.patch_size.or(Some(14)), MAX_PATCH)?,
        temporal_patch_size: at.dimension_u32(
            "temporal_patch_size",
            vision.temporal_patch_size.or(Some(2)),
            MAX_MERGE,
        )?,
        merge_size: at.dimension_u32(
            "spatial_merge_size",
            vision.spatial_merge_size.or(Some(2)),
            MAX_MERGE,
        )?,
    };
    let depth = at.dimension("depth", vision.depth, MAX_LAYERS)?;
    Ok((VisionConfig { hidden_size, depth, num_heads }, geometry))
}
