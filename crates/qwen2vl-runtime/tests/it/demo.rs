//! The demo model in its forms, and a question about no image.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use qwen2vl_runtime::{
    CancelToken, Engine, EngineOptions, Error, GenerationConfig, ModelConfig, ModelFiles, Precision, Prompt,
    TextConfig, VisionConfig, library,
};
use qwen2vl_types::PatchGeometry;

/// "Who are you?" in the chat template, and the answer "I am a small vision model." of transformers 4.57.6.
pub const WHO: &[u32] = &[
    151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, 151644, 872, 198, 15191, 525, 498, 30,
    151645, 198, 151644, 77091, 198,
];
pub const ANSWER: &[u32] = &[40, 1079, 264, 2613, 11129, 1614, 13];

/// Whether OpenVINO is there; where the tests must run in full, its absence fails them.
pub fn has_openvino() -> bool {
    let found = library::locate(None);
    if let Err(error) = &found {
        qwen2vl_testkit::skip(error);
    }
    found.is_ok()
}

/// The four models of an export, optimum-intel's or one for Spark NLP.
pub fn files_in(dir: &Path) -> ModelFiles {
    let file = |name: &str| dir.join(format!("openvino_{name}_model.xml"));
    ModelFiles {
        vision_embeddings: file("vision_embeddings"),
        vision_embeddings_merger: file("vision_embeddings_merger"),
        text_embeddings: file("text_embeddings"),
        language_model: file("language"),
    }
}

/// The export of optimum-intel in INT4.
pub fn files() -> ModelFiles {
    files_in(&qwen2vl_testkit::demo_model_dir())
}

pub fn config() -> ModelConfig {
    ModelConfig {
        geometry: PatchGeometry::default(),
        image_token_id: 151_655,
        video_token_id: 151_656,
        max_position_embeddings: 32_768,
        vocab_size: 151_936,
        vision: VisionConfig { hidden_size: 128, depth: 3, num_heads: 4 },
        text: TextConfig {
            hidden_size: 128,
            num_hidden_layers: 4,
            num_key_value_heads: 2,
            head_dim: 32,
            intermediate_size: 384,
        },
    }
}

pub fn load(files: &ModelFiles, options: EngineOptions) -> Result<Engine, Error> {
    Engine::load(files, &config(), &EngineOptions { precision: Precision::F32, ..options })
}

pub fn answer(engine: &Engine) -> Vec<u32> {
    let axis: Vec<i64> = (0..WHO.len() as i64).collect();
    let position_ids = [axis.clone(), axis.clone(), axis];
    let prompt =
        Prompt { input_ids: WHO, position_ids: &position_ids, rope_delta: 0, images: &[], videos: &[] };
    let config =
        GenerationConfig { max_new_tokens: 20, stop_token_ids: vec![151_645], ..GenerationConfig::default() };
    let mut streamed = Vec::new();
    let generation = engine.generate(&prompt, &config, &CancelToken::new(), &mut |token| {
        streamed.push(token);
        ControlFlow::Continue(())
    });
    let token_ids = generation.unwrap().token_ids;
    assert_eq!(streamed, token_ids);
    token_ids
}

/// A folder for compiled models that no other test uses.
pub fn cache(name: &str) -> PathBuf {
    let base = qwen2vl_testkit::demo_model_dir();
    base.with_file_name(format!("compiled-{name}-{}", std::process::id()))
}
