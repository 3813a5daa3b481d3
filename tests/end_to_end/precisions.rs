//! Whole answers of the seven-model form and of models in other precisions, token for token as optimum-intel gives them.
//! tools/reference/precisions.py wrote the goldens.
//!
//! optimum-intel gives the vision blocks their quadratic mask: equal answers show that one picture needs none.

use std::collections::BTreeMap;

use qwen2vl_pipeline::Annotator;
use qwen2vl_testkit::{
    check_all, demo_model_dir, demo_spark_zip, first_difference, golden, precisions_dir, read_jsonl,
};
use serde::Deserialize;

use crate::answers::NEAR_TIE;
use crate::set::{self, Item, SET, has_openvino};

/// At most one in so many items may be left out as a near-tie.
const NEAR_TIES: usize = 15;

#[derive(Deserialize)]
struct Row {
    model: String,
    id: u32,
    ids: Vec<u32>,
    gap: f32,
}

/// The package of the INT4 export with the models of a variant.
fn annotator(variant: &str) -> Annotator {
    let mut package = set::package(&demo_model_dir());
    if variant.starts_with("spark") {
        package.files = set::package(&demo_spark_zip()).files;
    }
    let replaced = match variant.split('-').nth(1) {
        Some("text") => Some(&mut package.files.text_embeddings),
        Some("merger") => Some(&mut package.files.vision_embeddings_merger),
        _ => None,
    };
    if let Some(model) = replaced {
        *model = precisions_dir().join(format!("{variant}.xml"));
    }
    set::annotator(package)
}

#[test]
fn models_of_every_form_and_precision_answer_as_through_optimum_intel() {
    if !has_openvino() {
        return;
    }
    let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in read_jsonl::<Row>(&golden("precisions/answers.jsonl")) {
        rows.entry(row.model.clone()).or_default().push(row);
    }
    assert!(rows.len() >= 8 && rows["spark"].len() == SET.len());
    let items: BTreeMap<u32, &Item> = SET.iter().map(|(item, _)| (item.id, item)).collect();
    for (variant, rows) in &rows {
        let near_ties = rows.iter().filter(|row| row.gap < NEAR_TIE).count();
        println!("{variant}: {near_ties} near-ties of {}", rows.len());
        assert!(near_ties * NEAR_TIES <= rows.len(), "{near_ties} near-ties prove too little");
        let annotator = annotator(variant);
        check_all(
            rows,
            |row| format!("{variant}, item {} ({})", row.id, items[&row.id].task),
            |row| {
                if row.gap < NEAR_TIE {
                    return Ok(());
                }
                let got = annotator.run(&items[&row.id].request()).map_err(|e| e.to_string())?;
                first_difference(&got.token_ids, &row.ids).map_or(Ok(()), Err)
            },
        );
    }
}
