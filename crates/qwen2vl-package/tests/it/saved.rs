//! Annotators that Spark NLP saved: the real one, and small made ones with every kind of fault.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use qwen2vl_package::{Error, ModelPackage, PackageKind};
use qwen2vl_testkit::{
    JavaValue, check_all, demo_model_dir, demo_spark_dir, demo_spark_zip, java_zip, object_file,
};
use serde_json::{Value, json};

use super::{IRS, Place, ir_xml, says};

const CLASS: &str = "com.johnsnowlabs.nlp.annotators.cv.Qwen2VLTransformer";
const ADDED: [&str; 7] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
];

/// A saved annotator in memory.
#[derive(Debug, Clone)]
struct Saved(BTreeMap<String, Vec<u8>>);

impl Saved {
    /// A small one in which everything is right: bytes a to z, one merge, the added tokens.
    fn new() -> Self {
        let mut saved = Self(BTreeMap::new());
        for ir in IRS {
            saved = saved.ir(ir, &ir_xml(ir), "plain");
        }
        let letters: Vec<String> = ('a'..='z').map(String::from).chain(["ab".to_owned()]).collect();
        let tokens = letters.iter().map(String::as_str).chain(ADDED);
        let vocabulary: Vec<JavaValue> = tokens.zip(0..).map(|(t, id)| JavaValue::entry(t, id)).collect();
        let added: Vec<JavaValue> = ADDED.iter().zip(27..).map(|(t, id)| JavaValue::entry(t, id)).collect();
        // Two parts each, the higher ids first; a single value stands in the last part.
        saved
            .feature("vocabulary", &[&vocabulary[20..], &vocabulary[..20]])
            .feature("merges", &[&[JavaValue::merge("a", "b", 0)], &[]])
            .feature("addedTokens", &[&added[3..], &added[..3]])
            .feature("generationConfig", &[&[], &[JavaValue::Generation([27, 29, 29, 151_936])]])
            .metadata(
                &json!({ "engine": "openvino", "imageMean": [0.5, 0.4, 0.3], "imageStd": [0.3, 0.2, 0.1] }),
            )
    }

    fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.0.insert(name.to_owned(), content.as_ref().to_vec());
        self
    }

    fn without(mut self, prefix: &str) -> Self {
        let before = self.0.len();
        self.0.retain(|name, _| !name.starts_with(prefix));
        assert!(self.0.len() < before, "{prefix} is nowhere");
        self
    }

    fn ir(self, name: &str, xml: &str, base: &str) -> Self {
        let (bin, xml_name) = (format!("{base}.bin"), format!("{base}.xml"));
        self.file(
            &format!("{name}.xml"),
            java_zip([(bin.as_str(), b"weights".as_slice()), (&xml_name, xml.as_bytes())]),
        )
    }

    fn feature(mut self, name: &str, parts: &[&[JavaValue]]) -> Self {
        for (i, part) in parts.iter().enumerate() {
            self = self.file(&format!("fields/{name}/part-{i:05}"), object_file(part));
        }
        self.file(&format!("fields/{name}/_SUCCESS"), "")
    }

    fn metadata(self, param_map: &Value) -> Self {
        self.metadata_of(CLASS, param_map)
    }

    fn metadata_of(self, class: &str, param_map: &Value) -> Self {
        let metadata = json!({
            "class": class, "timestamp": 1_795_484_150_622_i64, "sparkVersion": "3.5.9",
            "uid": "Qwen2VLTransformer_70d70ad2ba8b", "paramMap": param_map,
            "defaultParamMap": { "maxOutputLength": 20, "imageMean": [0.5, 0.5, 0.5], "topK": -1 }
        });
        self.file("metadata/part-00000", metadata.to_string() + "\n").file("metadata/_SUCCESS", "")
    }

    /// As a stage of a saved pipeline.
    fn in_pipeline(self) -> Self {
        let stage = "stages/1_Qwen2VLTransformer_70d70ad2ba8b/";
        let files = self.0.into_iter().map(|(name, content)| (format!("{stage}{name}"), content)).collect();
        let part = |class: &str, uid: &str, map: Value| json!({ "class": class, "timestamp": 1, "sparkVersion": "3.5.9", "uid": uid, "paramMap": map });
        let assembler = part("com.johnsnowlabs.nlp.ImageAssembler", "ImageAssembler_1", json!({}));
        let pipeline = part(
            "org.apache.spark.ml.PipelineModel",
            "PipelineModel_1",
            json!({ "stageUids": ["ImageAssembler_1", "Qwen2VLTransformer_70d70ad2ba8b"] }),
        );
        Self(files)
            .file("metadata/part-00000", pipeline.to_string())
            .file("stages/0_ImageAssembler_1/metadata/part-00000", assembler.to_string())
    }

    fn zip(&self, top: &str) -> Vec<u8> {
        let names: Vec<(String, &Vec<u8>)> = self.0.iter().map(|(n, c)| (format!("{top}{n}"), c)).collect();
        java_zip(names.iter().map(|(name, content)| (name.as_str(), content.as_slice())))
    }

    fn write(&self, folder: &Path) -> PathBuf {
        for (name, content) in &self.0 {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder.to_owned()
    }

    fn open(&self) -> Result<ModelPackage, Error> {
        Place::new().open_zip(&self.zip(""))
    }
}

/// What a package says, apart from where it came from.
fn content(package: &ModelPackage) -> (String, String, String, String) {
    let file = |path: &Path| std::fs::read_to_string(path).unwrap();
    (
        file(&package.root.join("config.json")),
        file(&package.tokenizer_json),
        format!("{:?} {:?} {:?}", package.preprocess, package.generation, package.model),
        package.chat_template.clone(),
    )
}

#[test]
fn every_form_of_a_saved_annotator_opens_to_the_same_package() {
    let saved = Saved::new();
    let place = Place::new();
    let plain = place.open_zip(&saved.zip("")).unwrap();
    assert_eq!(plain.provenance.kind, PackageKind::SparkAnnotator);
    let folder = |name: &str, saved: &Saved| {
        let path = saved.write(&place.dir.path().join(name));
        ModelPackage::open(&path, &place.cache()).unwrap()
    };
    let pipeline = saved.clone().in_pipeline();
    for other in [
        place.open_zip(&saved.zip("qwen2_vl/")).unwrap(),
        place.open_zip(&saved.zip("a/b/")).unwrap(),
        place.open_zip(&pipeline.zip("")).unwrap(),
        folder("annotator", &saved),
        folder("pipeline", &pipeline),
        folder("around/annotator", &saved),
        ModelPackage::open(&place.dir.path().join("around"), &place.cache()).unwrap(),
    ] {
        assert_eq!(content(&other), content(&plain), "{}", other.provenance.source.display());
    }
    let stages = folder("pipeline", &pipeline).provenance.spark.unwrap().pipeline.unwrap();
    assert_eq!(stages.uid, "PipelineModel_1");
    assert_eq!(stages.stages, ["com.johnsnowlabs.nlp.ImageAssembler", CLASS]);
}

#[test]
fn dimensions_ids_and_parameters_come_from_where_the_annotator_has_them() {
    let package = Saved::new().open().unwrap();
    let model = &package.model;
    assert_eq!(
        (model.text.hidden_size, model.text.num_hidden_layers, model.text.intermediate_size),
        (128, 4, 384)
    );
    assert_eq!((model.text.num_key_value_heads, model.text.head_dim, model.vocab_size), (2, 32, 151_936));
    assert_eq!((model.vision.hidden_size, model.vision.depth, model.vision.num_heads), (128, 3, 4));
    let geometry = model.geometry;
    assert_eq!((geometry.patch_size, geometry.temporal_patch_size, geometry.merge_size), (14, 2, 2));
    assert_eq!((model.image_token_id, model.video_token_id), (32, 33));
    assert_eq!(package.generation.stop_token_ids, [29, 27]);
    assert_eq!(package.preprocess.image_mean, [0.5, 0.4, 0.3]);
    assert_eq!(package.preprocess.image_std, [0.3, 0.2, 0.1]);
    // The class's default of 20 tokens is not the model's.
    assert_eq!(package.generation.max_new_tokens, 256);
    let spark = package.provenance.spark.unwrap();
    assert_eq!(
        (spark.uid.as_str(), spark.spark_version.as_str()),
        ("Qwen2VLTransformer_70d70ad2ba8b", "3.5.9")
    );
    assert_eq!(spark.timestamp, 1_795_484_150_622);
}

#[test]
fn parameters_that_were_set_are_honored_or_reported() {
    let set = json!({
        "engine": "openvino", "maxOutputLength": 64, "minPixelValue": 6272, "maxPixelValue": 401_408, "doSample": true,
        "temperature": 0.7, "topK": -1, "topP": 0.8, "repetitionPenalty": 1.1, "stopTokenIds": [5, 27], "randomSeed": 9,
        "minOutputLength": 3, "maxInputLength": 4096, "noRepeatNgramSize": 4, "ignoreTokenIds": [5, 30, 151_936, -1],
        "size": 224, "beamSize": 4, "nReturnSequences": 3, "repetition": 1
    });
    let package = Saved::new().metadata(&set).open().unwrap();
    let generation = &package.generation;
    assert_eq!((generation.max_new_tokens, generation.do_sample, generation.seed), (64, true, 9));
    assert_eq!((generation.temperature, generation.top_k, generation.top_p), (0.7, 0, 0.8));
    assert_eq!(generation.repetition_penalty, 1.1);
    assert_eq!(generation.stop_token_ids, [29, 27, 5]);
    assert_eq!((generation.min_new_tokens, generation.max_input_tokens), (3, Some(4096)));
    assert_eq!((generation.no_repeat_ngram_size, &generation.suppress_tokens[..]), (4, &[5, 30][..]));
    assert_eq!((generation.num_beams, generation.num_return_sequences), (1, 3));
    for noted in [
        "ignoreTokenIds has [151936], allowed is below the vocabulary size, 151936",
        "beamSize is 4, allowed is 1 to 1: not used",
    ] {
        assert!(package.notes.iter().any(|n| n.contains(noted)), "{:?}", package.notes);
    }
    let beams = json!({ "beamSize": 4, "nReturnSequences": 2 });
    let beams = Saved::new().metadata(&beams).open().unwrap();
    assert_eq!((beams.generation.num_beams, beams.generation.num_return_sequences), (4, 2));
    assert!(beams.parameters.iter().any(|p| p.name == "beamSize" && p.honored));
    let limits = package.preprocess.pixel_limits;
    assert_eq!((limits.min_pixels, limits.max_pixels), (6272, 401_408));
    // Not set: Qwen2-VL's own, not the class's 0.5.
    assert_eq!(package.preprocess.image_mean, [0.48145466, 0.4578275, 0.40821073]);
    let find = |name: &str| package.parameters.iter().find(|p| p.name == name).unwrap();
    assert!(find("maxOutputLength").honored && find("maxOutputLength").value == 64);
    for name in ["minOutputLength", "maxInputLength", "noRepeatNgramSize", "ignoreTokenIds"] {
        assert!(find(name).honored, "{:?}", find(name));
    }
    for (name, explicit, says) in [
        ("size", true, "keeps an image's proportions"),
        ("repetition", true, "unknown to this project"),
        ("imageMean", false, "a default of Spark NLP's class"),
    ] {
        let parameter = find(name);
        assert!(!parameter.honored && parameter.explicit == explicit, "{parameter:?}");
        assert!(parameter.effect.contains(says), "{parameter:?}");
    }
    // A value that makes no sense does not make the model unusable.
    let odd = Saved::new().metadata(&json!({ "temperature": 0, "maxOutputLength": -3 })).open().unwrap();
    assert_eq!((odd.generation.temperature, odd.generation.max_new_tokens), (1.0, 256));
    assert!(odd.notes.iter().any(|n| n.contains("temperature is 0")), "{:?}", odd.notes);
    let contradiction = json!({ "minOutputLength": 9, "maxOutputLength": 8, "maxInputLength": 0 });
    let odd = Saved::new().metadata(&contradiction).open().unwrap();
    assert_eq!((odd.generation.min_new_tokens, odd.generation.max_input_tokens), (0, None));
    for noted in ["minOutputLength is 9, allowed is 0 to 8", "maxInputLength is 0, allowed is 1 to"] {
        assert!(odd.notes.iter().any(|n| n.contains(noted)), "{:?}", odd.notes);
    }
}

#[test]
fn inner_names_may_be_anything_and_inner_zips_may_be_compressed() {
    let mut saved = Saved::new();
    for ir in IRS {
        saved = saved.ir(ir, &ir_xml(ir), &format!("oSmcFodf1f_qwen2vl_{ir}"));
    }
    // With zip64 records, which a 7B's models need.
    let options = zip::write::SimpleFileOptions::default().large_file(true);
    let mut deflated = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in &saved.0 {
        deflated.start_file(name.as_str(), options).unwrap();
        std::io::Write::write_all(&mut deflated, content).unwrap();
    }
    let compressed = deflated.finish().unwrap().into_inner();
    let place = Place::new();
    let plain = place.open_zip(&Saved::new().zip("")).unwrap();
    assert_eq!(content(&place.open_zip(&saved.zip("")).unwrap()), content(&plain));
    let package = place.open_zip(&compressed).unwrap();
    assert_eq!(content(&package), content(&plain));
    let mut names: Vec<String> = std::fs::read_dir(&package.root)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names.len(), 8 + 6 + 1, "only the model is there: {names:?}");
}

#[test]
fn a_folder_is_unpacked_once_until_a_file_of_it_changes() {
    let place = Place::new();
    let saved = Saved::new();
    let path = saved.write(&place.dir.path().join("annotator"));
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    let settle = |path: &Path| {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    };
    saved.0.keys().for_each(|name| settle(&path.join(name)));
    let first = ModelPackage::open(&path, &place.cache()).unwrap();
    let written = |package: &ModelPackage| {
        std::fs::metadata(package.root.join("config.json")).unwrap().modified().unwrap()
    };
    let second = ModelPackage::open(&path, &place.cache()).unwrap();
    assert_eq!((written(&second), &second.root), (written(&first), &first.root));
    // The same content elsewhere is found by its hash.
    let copy = saved.write(&place.dir.path().join("copy/annotator"));
    assert_eq!(ModelPackage::open(&copy, &place.cache()).unwrap().root, first.root);

    let changed = saved.metadata(&json!({ "engine": "openvino", "maxOutputLength": 7 }));
    changed.write(&path);
    let third = ModelPackage::open(&path, &place.cache()).unwrap();
    assert_eq!(third.generation.max_new_tokens, 7);
    assert_ne!(third.root, first.root);
}

/// A `.crc` of Hadoop for 512 bytes a sum.
fn crc_file(content: &[u8]) -> Vec<u8> {
    let mut file = b"crc\0\0\0\x02\0".to_vec();
    for chunk in content.chunks(512) {
        file.extend(crc32fast::hash(chunk).to_be_bytes());
    }
    file
}

#[test]
fn side_files_are_checked_where_they_are() {
    let mut with_sums = Saved::new();
    for (name, content) in with_sums.clone().0 {
        let (folder, file) = name.rsplit_once('/').map_or(("", name.as_str()), |(f, n)| (f, n));
        let slash = if folder.is_empty() { "" } else { "/" };
        with_sums = with_sums.file(&format!("{folder}{slash}.{file}.crc"), crc_file(&content));
    }
    with_sums.open().unwrap();
    for name in ["metadata/part-00000", "fields/merges/part-00000", "openvino_language_model.xml"] {
        let mut bad = with_sums.clone();
        let content = bad.0.get_mut(name).unwrap();
        // A bit that nothing else would notice: in a time of the zip, a sync marker, a uid.
        let at = content.windows(4).position(|w| w == b"sync" || w == b"70ad").unwrap_or(10);
        content[at] ^= 1;
        let place = Place::new();
        says(place.open_zip(&bad.zip("")), &[name, "at byte", "checksum"]).unwrap();
        assert!(place.cached().is_empty());
        let folder = bad.write(&place.dir.path().join("folder"));
        says(ModelPackage::open(&folder, &place.cache()), &[name, "at byte"]).unwrap();
        assert!(place.cached().is_empty());
    }
}

#[test]
fn side_files_far_larger_than_their_file_are_not_read() {
    let saved = Saved::new().file("fields/merges/.part-00000.crc", vec![b'c'; 100_000]);
    says(saved.open(), &["fields/merges/.part-00000.crc", "100000 bytes", "allowed"]).unwrap();
}

#[test]
fn each_fault_of_a_saved_annotator_is_named_and_leaves_nothing() {
    let saved = Saved::new;
    let entries = |list: &[(&str, i32)]| -> Vec<JavaValue> {
        list.iter().map(|(t, id)| JavaValue::entry(t, *id)).collect()
    };
    let sequence = |change: fn(&mut Vec<u8>)| {
        let mut file = object_file(&[JavaValue::merge("a", "b", 0)]);
        change(&mut file);
        saved().file("fields/merges/part-00000", file)
    };
    let lm = "openvino_language_model";
    let cases: Vec<(&str, Saved, Vec<&str>)> = vec![
        ("no model", saved().without("openvino_language"), vec!["lacks", "openvino_language_model.xml"]),
        (
            "two things missing",
            saved().without("fields/merges").without("openvino_text"),
            vec!["openvino_text_embeddings_model.xml, fields/merges"],
        ),
        ("no features", saved().without("fields/"), vec!["fields/vocabulary", "fields/generationConfig"]),
        ("no metadata", saved().without("metadata/"), vec!["lacks", "metadata/part-00000"]),
        (
            "empty feature",
            saved().feature("merges", &[&[], &[]]),
            vec!["merges", "is empty in all its parts"],
        ),
        (
            "Parquet",
            saved().without("fields/merges").file("fields/merges/part-00000-x-c000.snappy.parquet", "PAR1"),
            vec!["fields/merges", "Parquet", "annotatorSerializationFormat", "save it again"],
        ),
        (
            "another class",
            saved()
                .metadata_of("com.johnsnowlabs.nlp.annotators.cv.CLIPForZeroShotClassification", &json!({})),
            vec!["holds no", CLASS, "only com.johnsnowlabs.nlp.annotators.cv.CLIP"],
        ),
        (
            "two annotators",
            Saved(
                saved()
                    .0
                    .into_iter()
                    .flat_map(|(n, c)| [(format!("a/{n}"), c.clone()), (format!("b/{n}"), c)])
                    .collect(),
            ),
            vec!["2 models", "\"a\", \"b\""],
        ),
        (
            "another engine",
            saved().metadata(&json!({ "engine": "onnx" })),
            vec!["metadata/part-00000", "engine is \"onnx\"", "\"openvino\""],
        ),
        (
            "wrong mean",
            saved().metadata(&json!({ "imageMean": [1, 2] })),
            vec!["imageMean is [1,2]", "3 numbers"],
        ),
        (
            "metadata no JSON",
            saved().file("metadata/part-00000", "{\"class\": "),
            vec!["metadata/part-00000", "at byte"],
        ),
        (
            "inner file no zip",
            saved().file("openvino_language_model.xml", "PK\u{3}\u{4}"),
            vec![lm, "damaged"],
        ),
        (
            "inner zip of other files",
            saved().file("openvino_language_model.xml", java_zip([("a.bin", b"x".as_slice())])),
            vec![lm, "one .xml and its .bin, it has a.bin alone"],
        ),
        (
            "inner zip without weights",
            saved()
                .file("openvino_language_model.xml", java_zip([("a.xml", b"x".as_slice()), ("b.bin", b"x")])),
            vec![lm, "a.xml has no a.bin beside it, but b.bin"],
        ),
        (
            "inner zip that climbs out",
            saved().file("openvino_language_model.xml", java_zip([("../evil", b"x".as_slice())])),
            vec![lm, "leads out"],
        ),
        ("inner IR no XML", saved().ir(lm, "<net><layers>", "a"), vec![lm, ".xml"]),
        (
            "inner weights cut",
            saved().ir(lm, &ir_xml(lm).replace("size=\"4\"", "size=\"4000\""), "a"),
            vec![lm, "ends at byte 4000 of the weights, which have 7", "truncated"],
        ),
        (
            "no states",
            saved().ir(lm, &ir_xml(lm).replace("ReadValue", "Other"), "a"),
            vec![lm, "cannot tell the heads of its KV cache"],
        ),
        (
            "not a SequenceFile",
            saved().file("fields/merges/part-00000", "hello"),
            vec!["fields/merges/part-00000", "at byte 0"],
        ),
        ("cut record", sequence(|f| f.truncate(f.len() - 3)), vec!["fields/merges/part-00000", "at byte"]),
        (
            "hostile length",
            sequence(|f| f[95..99].copy_from_slice(&[0x7f, 255, 255, 255])),
            vec!["at byte 95"],
        ),
        (
            "wrong element",
            saved().feature("vocabulary", &[&[JavaValue::merge("a", "b", 1)]]),
            vec!["vocabulary has", "a pair of a text and a number"],
        ),
        (
            "negative id",
            saved().feature("addedTokens", &[&entries(&[("<x>", -1)])]),
            vec!["addedTokens has -1 for \"<x>\""],
        ),
        (
            "hostile id",
            saved().feature("addedTokens", &[&entries(&[("<x>", i32::MAX)])]),
            vec!["has 2147483647", "must be 0 to"],
        ),
        (
            "id twice",
            saved().feature("vocabulary", &[&entries(&[("a", 1), ("b", 1)])]),
            vec!["the id 1 twice", "\"b\""],
        ),
        (
            "merge of unknown tokens",
            saved().feature("merges", &[&[JavaValue::merge("a", "z", 0)], &[]]),
            vec!["joins \"a\" and \"z\" at rank 0", "no \"az\""],
        ),
        (
            "rank missing",
            saved().feature("merges", &[&[JavaValue::merge("a", "b", 1)], &[]]),
            vec!["1 merges, but ranks up to 1"],
        ),
        (
            "no vision token",
            saved().feature("addedTokens", &[&entries(&[("<|im_start|>", 28)]), &[]]),
            vec!["addedTokens has no <|im_end|>"],
        ),
        (
            "generation of another class",
            saved().feature("generationConfig", &[&entries(&[("a", 1)]), &[]]),
            vec!["generationConfig", "bosId"],
        ),
    ];
    check_all(
        &cases,
        |c| c.0.to_owned(),
        |(_, saved, parts)| {
            let place = Place::new();
            says(place.open_zip(&saved.zip("")), parts)?;
            let folder = saved.write(&place.dir.path().join("folder"));
            says(ModelPackage::open(&folder, &place.cache()), parts)?;
            match place.cached() {
                left if left.is_empty() => Ok(()),
                left => Err(format!("left {left:?}")),
            }
        },
    );
}

#[test]
fn the_package_that_spark_nlp_wrote_opens_to_what_it_was_made_from() {
    let place = Place::new();
    let zip = ModelPackage::open(&demo_spark_zip(), &place.cache()).unwrap();
    let folder = ModelPackage::open(&demo_spark_dir(), &place.cache()).unwrap();
    assert_eq!(content(&folder), content(&zip));
    let export = ModelPackage::open(&demo_model_dir(), &place.cache()).unwrap();
    assert_eq!(zip.model, export.model);
    assert_eq!(zip.chat_template, export.chat_template);
    assert_eq!(zip.generation.stop_token_ids, export.generation.stop_token_ids);
    assert_eq!(zip.preprocess.image_mean, export.preprocess.image_mean);
    assert!(zip.notes.is_empty(), "{:?}", zip.notes);

    let read = |package: &ModelPackage| -> Value {
        serde_json::from_slice(&std::fs::read(&package.tokenizer_json).unwrap()).unwrap()
    };
    let (mut ours, mut theirs) = (read(&zip), read(&export));
    assert_eq!(ours["added_tokens"].take(), theirs["added_tokens"].take());
    assert!(ours["model"]["vocab"].take() == theirs["model"]["vocab"].take(), "vocab differs");
    assert!(ours["model"]["merges"].take() == theirs["model"]["merges"].take(), "merges differ");
    assert_eq!(ours, theirs);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn saved_annotators_with_any_bytes_changed_are_the_same_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let saved = Saved::new();
        let place = Place::new();
        let plain = content(&place.open_zip(&saved.zip("")).unwrap());
        let mut bytes = saved.zip("");
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let other = Place::new();
        match ModelPackage::open_zip_bytes("m", &bytes, &other.cache()) {
            Ok(package) => prop_assert_eq!(content(&package), plain),
            Err(_) => prop_assert!(other.cached().is_empty()),
        }
    }

    #[test]
    fn parts_of_features_with_any_bytes_changed_do_not_panic(
        feature in prop::sample::select(vec!["vocabulary", "merges", "addedTokens", "generationConfig"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        // The zip's checksums are right here: only the readers stand between the bytes and the model.
        let mut saved = Saved::new();
        let (name, mut part) = saved
            .0
            .iter()
            .filter(|(name, part)| name.starts_with(&format!("fields/{feature}/part-")) && part.len() > 95)
            .map(|(name, part)| (name.clone(), part.clone()))
            .next()
            .unwrap();
        for (at, value) in changes {
            let at = at.index(part.len());
            part[at] = value;
        }
        saved = saved.file(&name, part);
        let place = Place::new();
        if place.open_zip(&saved.zip("")).is_err() {
            prop_assert!(place.cached().is_empty());
        }
    }

    #[test]
    fn metadata_of_any_form_is_read_or_refused(
        name in prop::sample::select(vec![
            "engine", "imageMean", "imageStd", "maxOutputLength", "temperature", "topK", "stopTokenIds", "minPixelValue",
            "maxPixelValue", "doResize", "randomSeed", "doSample", "minOutputLength", "maxInputLength",
            "noRepeatNgramSize", "ignoreTokenIds",
        ]),
        value in prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            ".*".prop_map(Value::from),
            prop::collection::vec(any::<f32>(), 0..5).prop_map(Value::from),
            Just(Value::Null),
            Just(json!({ "a": [] })),
        ],
    ) {
        let mut set = json!({ "engine": "openvino" });
        set[name] = value;
        if let Err(error) = Saved::new().metadata(&set).open() {
            prop_assert!(error.to_string().contains(name) || error.to_string().contains("pixel"), "{}", error);
        }
    }
}
