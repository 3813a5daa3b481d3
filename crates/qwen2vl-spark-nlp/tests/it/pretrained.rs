//! `pretrained`: names, places, the cache; without a network.

use qwen2vl_fetch::FetchOptions;
use qwen2vl_package::PackageKind;
use qwen2vl_spark_nlp::{DEFAULT_LANG, DEFAULT_PRETRAINED_NAME, Defaults, Error, Qwen2VLTransformer};
use qwen2vl_testkit::{demo_spark_dir, demo_spark_zip};

fn offline(models_dir: &std::path::Path) -> FetchOptions {
    let mut options = FetchOptions::from_env().unwrap();
    options.models_dir = models_dir.to_owned();
    options.state_dir = models_dir.join("state");
    options.offline = true;
    options
}

fn pretrained(dir: &std::path::Path, remote_loc: Option<&str>) -> Result<Qwen2VLTransformer, Error> {
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
    let path = dir.path().join("metadata/part-00000");
    let mut metadata: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    metadata["paramMap"]["maxOutputLength"] = 77.into();
    metadata["paramMap"]["minPixelValue"] = 50_176.into();
    std::fs::write(&path, metadata.to_string()).unwrap();
    std::fs::remove_file(dir.path().join("metadata/.part-00000.crc")).ok();
    let transformer = Qwen2VLTransformer::load(dir.path()).unwrap().set_defaults(Defaults::Python);
    assert_eq!((transformer.get_max_output_length(), transformer.get_min_pixel_value()), (77, 50_176));
    assert_eq!(transformer.clone().set_max_output_length(5).get_max_output_length(), 5);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
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
