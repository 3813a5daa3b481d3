//! What exactly is in a package, for people and programs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ir::{Ir, Port, shape_text};
use crate::parameters::Parameter;
use crate::provenance::{PackageKind, SparkProvenance};
use crate::{Error, ModelPackage, export};

/// Everything that a package says of itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackageReport {
    /// The package's name.
    pub name: String,
    /// Its form.
    pub kind: PackageKind,
    /// What was opened.
    pub source: PathBuf,
    /// Where its files lie, unpacked.
    pub root: PathBuf,
    /// As in [`crate::Provenance`].
    pub sha256: Option<String>,
    /// What runs it: always `openvino`.
    pub engine: &'static str,
    /// What Spark NLP wrote about it.
    pub spark: Option<SparkProvenance>,
    /// Bytes of all weights.
    pub weight_bytes: u64,
    /// The four models.
    pub models: Vec<IrReport>,
    /// The tokenizer's counts.
    pub tokenizer: TokenizerReport,
    /// The model's dimensions, with the names of `config.json`.
    pub config: Value,
    /// The preprocessing of images, with the names of `preprocessor_config.json`.
    pub preprocessor: Value,
    /// The defaults for generating, with the names of `generation_config.json`.
    pub generation: Value,
    /// The parameters that a saved annotator carries.
    pub parameters: Vec<Parameter>,
    /// What is missing or odd.
    pub notes: Vec<String>,
}

/// One OpenVINO model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IrReport {
    /// The file's name without its extension.
    pub name: String,
    /// Bytes of the graph.
    pub xml_bytes: u64,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// The types of its weights, by bytes: `u4 + u8`.
    pub precision: String,
    /// Bytes of constants by element type, scales and zero points included.
    pub constants: BTreeMap<String, u64>,
    /// How NNCF compressed the weights.
    pub compression: Option<String>,
    /// The version of OpenVINO that wrote it.
    pub openvino_version: Option<String>,
    /// As `inputs_embeds f32 [?, ?, 1536]`.
    pub inputs: Vec<String>,
    /// As `logits f32 [?, ?, 151936]`.
    pub outputs: Vec<String>,
    /// Number of state variables: two for each layer of a language model.
    pub states: usize,
}

/// A tokenizer's counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenizerReport {
    /// Tokens of the vocabulary, without added ones.
    pub vocabulary: usize,
    /// Merges.
    pub merges: usize,
    /// Added tokens.
    pub added_tokens: usize,
}

impl ModelPackage {
    /// Reads what the package says of itself; its weights are not read.
    ///
    /// # Errors
    ///
    /// See [`Error`]: a file that was read when the package was opened can have changed since.
    pub fn report(&self) -> Result<PackageReport, Error> {
        let mut models = Vec::new();
        for name in export::IRS {
            let path = self.root.join(format!("{name}.xml"));
            models.push(IrReport::new(name, &path, &Ir::read(&path, &path)?)?);
        }
        let tokenizer = TokenizerReport::read(&self.tokenizer_json)?;
        let mut notes = self.notes.clone();
        notes.extend(self.oddities(&tokenizer));
        Ok(PackageReport {
            name: self.name.clone(),
            kind: self.provenance.kind,
            source: self.provenance.source.clone(),
            root: self.root.clone(),
            sha256: self.provenance.sha256.clone(),
            engine: "openvino",
            spark: self.provenance.spark.clone(),
            weight_bytes: self.weight_bytes,
            models,
            tokenizer,
            config: self.config_json(),
            preprocessor: self.preprocessor_json(),
            generation: self.generation_json(),
            parameters: self.parameters.clone(),
            notes,
        })
    }

    /// What is unusual, though it can be used.
    fn oddities(&self, tokenizer: &TokenizerReport) -> Vec<String> {
        let mut notes = Vec::new();
        let tokens = tokenizer.vocabulary + tokenizer.added_tokens;
        if tokens > self.model.vocab_size {
            notes.push(format!(
                "the tokenizer has {tokens} tokens, the language model {}",
                self.model.vocab_size
            ));
        }
        if self.generation.stop_token_ids.is_empty() {
            notes.push("no stop token is given: answers end at their greatest length".to_owned());
        }
        let first = self.preprocess.pixel_limits;
        if first.max_pixels < 200_704 {
            notes.push(format!("images are reduced to {} pixels", first.max_pixels));
        }
        notes
    }

    fn config_json(&self) -> Value {
        let (model, text, vision) = (&self.model, &self.model.text, &self.model.vision);
        json!({
            "image_token_id": model.image_token_id,
            "video_token_id": model.video_token_id,
            "text_config": {
                "hidden_size": text.hidden_size,
                "intermediate_size": text.intermediate_size,
                "num_hidden_layers": text.num_hidden_layers,
                "num_key_value_heads": text.num_key_value_heads,
                "head_dim": text.head_dim,
                "vocab_size": model.vocab_size,
                "max_position_embeddings": model.max_position_embeddings,
            },
            "vision_config": {
                "embed_dim": vision.hidden_size,
                "depth": vision.depth,
                "num_heads": vision.num_heads,
                "patch_size": model.geometry.patch_size,
                "temporal_patch_size": model.geometry.temporal_patch_size,
                "spatial_merge_size": model.geometry.merge_size,
            },
        })
    }

    fn preprocessor_json(&self) -> Value {
        let options = &self.preprocess;
        json!({
            "min_pixels": options.pixel_limits.min_pixels,
            "max_pixels": options.pixel_limits.max_pixels,
            "image_mean": options.image_mean,
            "image_std": options.image_std,
            "do_resize": options.do_resize,
            "do_normalize": options.do_normalize,
        })
    }

    fn generation_json(&self) -> Value {
        let generation = &self.generation;
        json!({
            "max_new_tokens": generation.max_new_tokens,
            "do_sample": generation.do_sample,
            "temperature": shortest(generation.temperature),
            "top_k": generation.top_k,
            "top_p": shortest(generation.top_p),
            "repetition_penalty": shortest(generation.repetition_penalty),
            "eos_token_id": generation.stop_token_ids,
        })
    }
}

/// An `f32` as the number that prints as it does: 0.01, not 0.009999999776482582.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

impl IrReport {
    fn new(name: &str, xml: &Path, ir: &Ir) -> Result<Self, Error> {
        let size = |path: &Path| {
            let metadata = std::fs::metadata(path);
            metadata.map(|m| m.len()).map_err(|source| Error::Read { path: path.to_owned(), source })
        };
        let ports = |ports: &[Port]| {
            let text =
                |p: &Port| format!("{} {} {}", p.name, p.element_type, shape_text(&p.dims)).trim().to_owned();
            ports.iter().map(text).collect()
        };
        Ok(Self {
            name: name.to_owned(),
            xml_bytes: size(xml)?,
            weight_bytes: size(&xml.with_extension("bin"))?,
            precision: ir.precision(),
            constants: ir.constants.clone(),
            compression: ir.compression.clone(),
            openvino_version: ir.openvino_version.clone(),
            inputs: ports(&ir.inputs),
            outputs: ports(&ir.outputs),
            states: ir.states.len(),
        })
    }
}

impl TokenizerReport {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct TokenizerFile {
            #[serde(default)]
            added_tokens: Count,
            model: Model,
        }
        #[derive(Deserialize)]
        struct Model {
            vocab: Count,
            merges: Count,
        }
        let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let parsed: TokenizerFile = serde_json::from_reader(BufReader::with_capacity(1 << 18, file))
            .map_err(|source| Error::Json { path: path.to_owned(), source })?;
        Ok(Self {
            vocabulary: parsed.model.vocab.0,
            merges: parsed.model.merges.0,
            added_tokens: parsed.added_tokens.0,
        })
    }
}

/// How many elements a list or map has, without keeping them.
#[derive(Debug, Default)]
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_any(Counter)
    }
}
