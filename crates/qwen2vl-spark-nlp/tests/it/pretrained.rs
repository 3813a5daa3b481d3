//! `pretrained` and `load`: names, places, the cache, what Spark saved; without a network.

use std::path::Path;

use qwen2vl_fetch::FetchOptions;
use qwen2vl_package::PackageKind;
use qwen2vl_spark_nlp::{
    DEFAULT_LANG, DEFAULT_PRETRAINED_NAME, Defaults, Error, ImageAssembler, PipelineModel, Qwen2VLTransformer,
};
use qwen2vl_testkit::{demo_spark_dir, demo_spark_zip, golden};
use serde_json::Value;

fn offline(models_dir: &Path) -> FetchOptions {
    let mut options = FetchOptions::from_env().unwrap();
    options.models_dir = models_dir.to_owned();
    options.state_dir = models_dir.join("state");
    options.offline = true;
    options
}

fn pretrained(dir: &Path, remote_loc: Option<&str>) -> Result<Qwen2VLTransformer, Error> {
    Qwen2VLTransformer::pretrained_with(DEFAULT_PRETRAINED_NAME, DEFAULT_LANG, remote_loc, offline(dir))
}

#[test]
fn a_cached_model_is_found_by_name_without_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let zip = dir.path().join("qwen2_vl_2b_instruct_int4_en_5.5.1_3.0_1739495409030.zip");
    std::fs::copy(demo_spark_zip(), zip).unwrap();
    for remote_loc in [None, Some("public/models")] {
        let transformer = pretrained(dir.path(), remote_loc).unwrap();
        assert_eq!(transformer.package().provenance.kind, PackageKind::SparkAnnotator);
        assert_eq!(transformer.get_max_output_length(), 20);
    }
}

#[test]
fn what_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for remote_loc in [None, Some("@somebody/models")] {
        let error = pretrained(dir.path(), remote_loc).unwrap_err();
        assert_eq!(error.kind(), "fetch");
        assert!(error.to_string().contains(DEFAULT_PRETRAINED_NAME), "{error}");
    }
    for given in ["clients/models", "@", "@/"] {
        let error = pretrained(dir.path(), Some(given)).unwrap_err();
        assert!(
            matches!(error, Error::RemoteLocation { .. }) && error.to_string().contains(given),
            "{error}"
        );
    }
}

#[test]
fn saved_annotators_keep_what_was_set_in_them() {
    let transformer = Qwen2VLTransformer::load(demo_spark_dir()).unwrap();
    let saved = &transformer.package().parameters;
    assert!(saved.iter().any(|p| p.name == "imageMean" && p.explicit));
    let mean = transformer.package().preprocess.image_mean;
    assert_eq!(transformer.get_image_mean(), mean);
    assert_eq!(transformer.get_engine(), "openvino");
    transformer.validate().unwrap();

    let dir = tempfile::tempdir().unwrap();
    copy(&demo_spark_dir(), dir.path());
    edit(dir.path(), |metadata| {
        metadata["paramMap"]["maxOutputLength"] = 77.into();
        metadata["paramMap"]["minPixelValue"] = 50_176.into();
    });
    let transformer = Qwen2VLTransformer::load(dir.path()).unwrap().set_defaults(Defaults::Python);
    assert_eq!((transformer.get_max_output_length(), transformer.get_min_pixel_value()), (77, 50_176));
    assert_eq!(transformer.clone().set_max_output_length(5).get_max_output_length(), 5);
}

/// Both stages as Spark saved them: the annotator's metadata are those of the demo model with columns set.
fn saved_pipeline(dir: &Path) {
    let excerpt = std::fs::File::open(golden("spark-package/pipeline-model-excerpt.zip")).unwrap();
    let mut zip = zip::ZipArchive::new(excerpt).unwrap();
    let names: Vec<String> = zip.file_names().map(|name| name.unwrap().into_owned()).collect();
    for name in names.iter().filter(|n| n.ends_with("metadata/part-00000") && !n.contains("Qwen2VL")) {
        let target = dir.join(name);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::io::copy(&mut zip.by_name(name).unwrap(), &mut std::fs::File::create(target).unwrap()).unwrap();
    }
    let stage = dir.join("stages/1_Qwen2VLTransformer_3d2e89dfe6c3");
    copy(&demo_spark_dir(), &stage);
    edit(&stage, |metadata| {
        metadata["uid"] = "Qwen2VLTransformer_3d2e89dfe6c3".into();
        metadata["paramMap"]["outputCol"] = "said".into();
        metadata["paramMap"]["inputCols"] = serde_json::json!(["pictures"]);
    });
    edit(&dir.join("stages/0_ImageAssembler_589f49a54fde"), |metadata| {
        metadata["paramMap"]["outputCol"] = "pictures".into();
        metadata["paramMap"]["textCol"] = "question".into();
    });
}

/// Changes a stage's metadata.
fn edit(stage: &Path, change: impl FnOnce(&mut Value)) {
    let path = stage.join("metadata/part-00000");
    let mut metadata: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut metadata);
    std::fs::write(&path, metadata.to_string()).unwrap();
    std::fs::remove_file(stage.join("metadata/.part-00000.crc")).ok();
}

#[test]
fn saved_pipelines_keep_their_columns() {
    let dir = tempfile::tempdir().unwrap();
    saved_pipeline(dir.path());
    let model = PipelineModel::load(dir.path()).unwrap();
    let assembler = model.assembler();
    let columns = [assembler.get_input_col(), assembler.get_output_col(), assembler.get_text_col()];
    assert_eq!(columns, ["image", "pictures", "question"]);
    assert_eq!(
        (model.transformer().get_input_cols(), model.transformer().get_output_col().as_str()),
        (vec!["pictures".to_owned()], "said")
    );

    let alone = PipelineModel::load(dir.path().join("stages/1_Qwen2VLTransformer_3d2e89dfe6c3")).unwrap();
    assert_eq!((alone.assembler().get_output_col(), alone.assembler().get_text_col()), ("pictures", "text"));
}

#[test]
fn what_is_no_saved_assembler_is_named() {
    let dir = tempfile::tempdir().unwrap();
    saved_pipeline(dir.path());
    let stage = dir.path().join("stages/0_ImageAssembler_589f49a54fde");
    let error =
        ImageAssembler::load(dir.path().join("stages/1_Qwen2VLTransformer_3d2e89dfe6c3")).unwrap_err();
    assert!(error.to_string().contains("Qwen2VLTransformer, expected is an ImageAssembler"), "{error}");
    let part = stage.join("metadata/part-00000");
    for (content, want) in [(&b"no JSON"[..], "cannot be read"), (b"", "no part file")] {
        std::fs::write(&part, content).unwrap();
        let error = ImageAssembler::load(&stage).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert_eq!(error.kind(), "io");
    }
    std::fs::write(&part, vec![b' '; (4 << 20) + 1]).unwrap();
    assert!(ImageAssembler::load(&stage).unwrap_err().to_string().contains("4194305 bytes"));
    assert!(matches!(ImageAssembler::load(dir.path().join("nowhere")), Err(Error::Io { .. })));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
