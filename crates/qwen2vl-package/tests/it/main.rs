//! Packages opened from folders and zips: right ones, every kind of wrong one, hostile ones.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod concurrency;
mod configs;
mod golden;
mod hostile_zips;
mod open;
mod properties;
mod saved;

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use qwen2vl_package::{Error, ModelPackage};
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;

const IRS: [&str; 4] = [
    "openvino_vision_embeddings_model",
    "openvino_vision_embeddings_merger_model",
    "openvino_text_embeddings_model",
    "openvino_language_model",
];

/// An export in memory: small, right in every file that this crate reads.
#[derive(Debug, Clone)]
struct Export(BTreeMap<String, Vec<u8>>);

impl Export {
    fn new() -> Self {
        let mut export = Self(BTreeMap::new());
        for ir in IRS {
            export = export.file(&format!("{ir}.xml"), ir_xml(ir)).file(&format!("{ir}.bin"), "weights");
        }
        export
            .json("config.json", &config())
            .json(
                "preprocessor_config.json",
                &json!({ "min_pixels": 3136, "max_pixels": 200_704, "patch_size": 14 }),
            )
            .json("generation_config.json", &json!({ "eos_token_id": [151_645, 151_643] }))
            .file("tokenizer.json", "{}")
            .file("chat_template.jinja", "{{ messages }}")
    }

    fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.0.insert(name.to_owned(), content.as_ref().to_vec());
        self
    }

    fn json(self, name: &str, content: &Value) -> Self {
        self.file(name, content.to_string())
    }

    fn without(mut self, name: &str) -> Self {
        self.0.remove(name).unwrap_or_else(|| panic!("{name} is no file of the export"));
        self
    }

    fn write(&self, folder: &Path) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap();
        for (name, content) in &self.0 {
            std::fs::write(folder.join(name), content).unwrap();
        }
        folder.to_owned()
    }

    /// A zip with `top` before each name.
    fn zip(&self, top: &str) -> Vec<u8> {
        self.zip_with(top, |_| ())
    }

    /// A zip to which `more` adds entries.
    fn zip_with(&self, top: &str, more: impl FnOnce(&mut zip::ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in &self.0 {
            zip.start_file(format!("{top}{name}"), SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        more(&mut zip);
        zip.finish().unwrap().into_inner()
    }
}

/// An IR without the layers between its inputs and outputs, of the demo model's dimensions and 4 bytes of weights.
fn ir_xml(ir: &str) -> String {
    let input = |name: &str, shape: &str| {
        format!(
            r#"<layer name="{name}" type="Parameter"><data shape="{shape}" element_type="f32"/><output><port id="0"
            precision="FP32" names="{name}"/></output></layer>"#
        )
    };
    let layer = |kind: &str, dims: &[i64]| {
        let dims: String = dims.iter().map(|d| format!("<dim>{d}</dim>")).collect();
        let port = format!(r#"<port id="0" precision="FP32">{dims}</port>"#);
        let second = if kind == "Convolution" { port.clone() } else { String::new() };
        format!(
            r#"<layer name="{kind}" type="{kind}" output_names="y"><input>{second}{port}</input><output>{port}</output></layer>"#
        )
    };
    let mut layers =
        r#"<layer name="w" type="Const"><data element_type="f16" shape="2" offset="0" size="4"/></layer>"#
            .to_owned();
    match ir {
        "openvino_vision_embeddings_model" => {
            layers += &input("hidden_states", "?,?");
            layers += &layer("Convolution", &[128, 3, 2, 14, 14]);
            layers += &layer("Result", &[-1, 128]);
        }
        "openvino_vision_embeddings_merger_model" => {
            layers += &input("hidden_states", "?,128");
            layers += &layer("ScaledDotProductAttention", &[4, -1, 32]).repeat(3);
            layers += &layer("Gelu", &[-1, 512]);
            layers += &layer("Result", &[-1, 128]);
        }
        "openvino_text_embeddings_model" => {
            layers += &input("input", "?,?");
            layers += &layer("Result", &[-1, -1, 128]);
        }
        _ => {
            layers += &input("inputs_embeds", "?,?,128");
            layers += &r#"<layer name="r" type="ReadValue"><data variable_id="kv" variable_type="f32"
                variable_shape="?,2,?,32"/></layer>"#
                .repeat(8);
            layers += &layer("Swish", &[-1, -1, 384]);
            layers += &layer("Result", &[-1, -1, 151_936]);
        }
    }
    format!("<net version=\"11\"><layers>{layers}</layers></net>")
}

/// A `config.json` of the newer form, of the demo model's dimensions.
fn config() -> Value {
    json!({
        "model_type": "qwen2_vl", "image_token_id": 151_655, "video_token_id": 151_656,
        "text_config": {
            "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 32_768, "vocab_size": 151_936, "eos_token_id": 151_645,
            "rope_scaling": { "type": "default", "mrope_section": [4, 6, 6] }
        },
        "vision_config": {
            "depth": 3, "embed_dim": 128, "hidden_size": 128, "num_heads": 4, "in_channels": 3, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2
        }
    })
}

/// A test's own folders.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn model(&self) -> PathBuf {
        self.dir.path().join("model")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// Opens an export as a folder.
    fn open(&self, export: &Export) -> Result<ModelPackage, Error> {
        ModelPackage::open(&export.write(&self.model()), &self.cache())
    }

    /// Opens a zip as a file.
    fn open_zip(&self, bytes: &[u8]) -> Result<ModelPackage, Error> {
        let path = self.dir.path().join("model.zip");
        std::fs::write(&path, bytes).unwrap();
        ModelPackage::open(&path, &self.cache())
    }

    /// What lies in the cache, without the lock files that stay.
    fn cached(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.cache().join("packages")).into_iter().flatten();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !name.ends_with(".lock") && name != "index");
        names
    }
}

/// Checks that every part stands in the error's message.
fn says(result: Result<ModelPackage, Error>, parts: &[&str]) -> Result<(), String> {
    let message = match result {
        Ok(package) => return Err(format!("opened as {:?}", package.name)),
        Err(error) => error.to_string(),
    };
    match parts.iter().find(|part| !message.contains(**part)) {
        Some(part) => Err(format!("{part:?} is not in {message:?}")),
        None => Ok(()),
    }
}
